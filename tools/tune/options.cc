#include "tools/tune/options.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "src/base/knobs.h"

namespace libcomm::tune {
namespace {

constexpr int kMostRanks = 64;

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t comma = list.find(',');
    parts.push_back(list.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    list.remove_prefix(comma + 1);
  }
}

template <typename T>
Status read_number(std::string_view option, std::string_view text, T least, T most, T* value) {
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (err != std::errc() || end != text.data() + text.size() || *value < least || *value > most)
    return error(Code::kInvalidArgument, "{} {}: expected a number from {} to {}", option, text,
                 least, most);
  return Status::ok();
}

Status read_size(std::string_view option, std::string_view text, size_t* value) {
  uint64_t bytes = 0;
  if (!parse_size(text, &bytes) || bytes < sizeof(float) || bytes > size_t{1} << 32)
    return error(Code::kInvalidArgument, "{} {}: expected a size from 4 to 4G, such as 64K", option,
                 text);
  *value = bytes / sizeof(float) * sizeof(float);
  return Status::ok();
}

// Whoever reads what is printed, or sets COMM_TUNER_FILE to it, must be able to tell where it ends.
Status read_output(std::string_view name, std::string* output) {
  if (name.empty()) return error(Code::kInvalidArgument, "--output: the name is empty");
  const bool odd = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < ' ' || c == '\x7f';
  });
  if (odd)
    return error(Code::kInvalidArgument,
                 "--output: the name has a line break or another control character in it; choose "
                 "one without");
  *output = name;
  return Status::ok();
}

Status read_collectives(std::string_view list, std::vector<Collective>* collectives) {
  collectives->clear();
  for (const std::string_view name : split(list)) {
    std::string names;
    bool found = false;
    for (int i = 0; i < kNumCollectives; ++i) {
      const auto collective = static_cast<Collective>(i);
      if (!is_measured(collective)) continue;
      names += std::string(names.empty() ? "" : ", ") + name_of(collective);
      if (name != name_of(collective)) continue;
      collectives->push_back(collective);
      found = true;
    }
    if (!found)
      return error(Code::kInvalidArgument, "--collectives: '{}' is not one of: {}", name, names);
  }
  return Status::ok();
}

Status read_ranks(std::string_view list, std::vector<int>* ranks) {
  ranks->clear();
  for (const std::string_view text : split(list)) {
    int number = 0;
    COMM_TRY(read_number("--ranks", text, 2, kMostRanks, &number));
    ranks->push_back(number);
  }
  return Status::ok();
}

Status read_media(std::string_view list, std::vector<Medium>* media) {
  media->clear();
  for (const std::string_view name : split(list)) {
    if (name == "shm") {
      media->push_back(Medium::kMemory);
    } else if (name == "tcp") {
      media->push_back(Medium::kSockets);
    } else {
      return error(Code::kInvalidArgument, "--transports: '{}' is not one of: shm, tcp", name);
    }
  }
  return Status::ok();
}

}  // namespace

const char* const kHelp =
    R"(comm-tune: measure which algorithm is fastest on this machine, and write a tuning table

usage: comm-tune [options]
  --output FILE        the table (default comm.tuning); COMM_TUNER_FILE=FILE uses it
  --collectives LIST   of allreduce,reducescatter,allgather,broadcast,reduce,alltoall,gather,scatter
                       (default: all of them)
  --ranks LIST         group sizes, 2 to 64 (default: 2, and the usable cores if they are more)
  --transports LIST    shm, tcp or shm,tcp (default: shm,tcp)
  --min SIZE           least bytes of a block (default 8)
  --max SIZE           most bytes of a block (default 4M)
  --factor N           from one size to the next, 2 to 1024 (default 4)
  --rounds N           measurements of each algorithm, interleaved; medians count (default 9)
  --quick              --rounds 3, a quarter of the time for each, --max 1M, --factor 8
  --launched           the ranks are those that mpirun or srun started: for several hosts
  --verbose            print the time of every algorithm
  --help               print this text

A block is what a call's count says; comm-tune fills it with floats. Leave the machine alone meanwhile.
Exit status: 0; 1 when something failed; 2 for wrong usage.
)";

bool is_measured(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kAllToAll:
    case Collective::kGather:
    case Collective::kScatter:
      return true;
    default:
      return false;
  }
}

Result<Options> parse_options(const std::vector<std::string>& words) {
  Options options;
  for (int i = 0; i < kNumCollectives; ++i)
    if (is_measured(static_cast<Collective>(i)))
      options.collectives.push_back(static_cast<Collective>(i));
  options.ranks = {2};
  if (const int cores = std::min(usable_cores(), kMostRanks); cores > 2)
    options.ranks.push_back(cores);
  options.media = {Medium::kMemory, Medium::kSockets};
  bool quick = false;
  bool has_max = false, has_factor = false, has_rounds = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& option = words[i];
    if (option == "--help" || option == "-h") {
      options.help = true;
    } else if (option == "--quick") {
      quick = true;
    } else if (option == "--launched") {
      options.launched = true;
    } else if (option == "--verbose") {
      options.verbose = true;
    } else {
      const std::string_view known[] = {"--output", "--collectives", "--ranks",  "--transports",
                                        "--min",    "--max",         "--factor", "--rounds"};
      if (std::find(std::begin(known), std::end(known), option) == std::end(known))
        return error(Code::kInvalidArgument, "unknown option '{}'; comm-tune --help lists them",
                     option);
      if (i + 1 == words.size())
        return error(Code::kInvalidArgument, "{} needs a value; see comm-tune --help", option);
      const std::string& value = words[++i];
      if (option == "--output") COMM_TRY(read_output(value, &options.output));
      if (option == "--collectives") COMM_TRY(read_collectives(value, &options.collectives));
      if (option == "--ranks") COMM_TRY(read_ranks(value, &options.ranks));
      if (option == "--transports") COMM_TRY(read_media(value, &options.media));
      if (option == "--min") COMM_TRY(read_size(option, value, &options.min_bytes));
      if (option == "--max") COMM_TRY(read_size(option, value, &options.max_bytes));
      if (option == "--factor")
        COMM_TRY(read_number<size_t>(option, value, 2, 1024, &options.factor));
      if (option == "--rounds") COMM_TRY(read_number(option, value, 1, 1000, &options.rounds));
      has_max = has_max || option == "--max";
      has_factor = has_factor || option == "--factor";
      has_rounds = has_rounds || option == "--rounds";
    }
  }
  if (quick) {
    if (!has_rounds) options.rounds = 3;
    if (!has_max) options.max_bytes = size_t{1} << 20;
    if (!has_factor) options.factor = 8;
    options.sample_ms /= 4;
  }
  if (options.min_bytes > options.max_bytes)
    return error(Code::kInvalidArgument, "--min {} is more than --max {}", options.min_bytes,
                 options.max_bytes);
  return options;
}

}  // namespace libcomm::tune
