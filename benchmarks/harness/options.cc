#include "benchmarks/harness/options.h"

#include <getopt.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace bench {
namespace {

constexpr size_t kSmallBytes = size_t{64} << 10;
constexpr size_t kHugeBytes = size_t{64} << 20;

// Flags without a letter of their own.
enum LongOnly { kProcs = 1000, kMemory, kStream, kOneWay };

constexpr char kLetters[] = "t:g:b:e:i:f:n:w:m:N:a:p:c:o:d:r:z:y:T:G:C:S:R:J:h";

const option kLongOptions[] = {
    {"nthreads", required_argument, nullptr, 't'},
    {"ngpus", required_argument, nullptr, 'g'},
    {"minbytes", required_argument, nullptr, 'b'},
    {"maxbytes", required_argument, nullptr, 'e'},
    {"stepbytes", required_argument, nullptr, 'i'},
    {"stepfactor", required_argument, nullptr, 'f'},
    {"iters", required_argument, nullptr, 'n'},
    {"warmup_iters", required_argument, nullptr, 'w'},
    {"agg_iters", required_argument, nullptr, 'm'},
    {"run_cycles", required_argument, nullptr, 'N'},
    {"average", required_argument, nullptr, 'a'},
    {"parallel_init", required_argument, nullptr, 'p'},
    {"check", required_argument, nullptr, 'c'},
    {"op", required_argument, nullptr, 'o'},
    {"datatype", required_argument, nullptr, 'd'},
    {"root", required_argument, nullptr, 'r'},
    {"blocking", required_argument, nullptr, 'z'},
    {"stream_null", required_argument, nullptr, 'y'},
    {"timeout", required_argument, nullptr, 'T'},
    {"cudagraph", required_argument, nullptr, 'G'},
    {"report_cputime", required_argument, nullptr, 'C'},
    {"report_timestamps", required_argument, nullptr, 'S'},
    {"local_register", required_argument, nullptr, 'R'},
    {"output_file", required_argument, nullptr, 'J'},
    {"help", no_argument, nullptr, 'h'},
    {"procs", required_argument, nullptr, kProcs},
    {"memory", required_argument, nullptr, kMemory},
    {"stream", no_argument, nullptr, kStream},
    {"one_way", no_argument, nullptr, kOneWay},
    {nullptr, 0, nullptr, 0},
};

std::optional<int> parse_int(const char* text) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || value < INT_MIN || value > INT_MAX) {
    return std::nullopt;
  }
  return static_cast<int>(value);
}

// Turns one flag after the other into fields; the first bad one leaves its text in error_.
class Parser {
 public:
  Parser(const OptionSet& set, Options* options) : set_(set), options_(*options) {}

  bool parse(int argc, char** argv);
  std::string error() const { return std::string(set_.program) + ": " + error_; }

 private:
  bool apply(int flag, const char* name, const char* value);
  bool finish();
  bool integer(const char* name, const char* value, int least, int most, int* out);
  bool flag01(const char* name, const char* value, bool* out);
  bool size(const char* name, const char* value, size_t least, size_t* out);
  bool datatypes(const char* value);
  bool operators(const char* value);
  bool bad(const char* name, const char* value, const std::string& accepted);

  const OptionSet& set_;
  Options& options_;
  std::string error_;
  bool null_stream_ = false;
  bool step_bytes_given_ = false;
};

bool Parser::bad(const char* name, const char* value, const std::string& accepted) {
  error_ = std::string(name) + "=" + value + " is not " + accepted;
  return false;
}

bool Parser::integer(const char* name, const char* value, int least, int most, int* out) {
  const std::optional<int> parsed = parse_int(value);
  if (!parsed || *parsed < least || *parsed > most) {
    return bad(name, value,
               "a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  *out = *parsed;
  return true;
}

bool Parser::flag01(const char* name, const char* value, bool* out) {
  int number = 0;
  if (!integer(name, value, 0, 1, &number)) return false;
  *out = number == 1;
  return true;
}

bool Parser::size(const char* name, const char* value, size_t least, size_t* out) {
  const std::optional<size_t> parsed = parse_size(value);
  if (!parsed || *parsed < least) {
    return bad(name, value,
               "a size of at least " + std::to_string(least) + " such as 8, 4K, 1.5M or 2G");
  }
  *out = *parsed;
  return true;
}

bool Parser::datatypes(const char* value) {
  options_.types.clear();
  if (std::strcmp(value, "all") == 0) {
    for (const TypeInfo& type : all_types()) options_.types.push_back(type.type);
    return true;
  }
  if (const auto type = find_type(value)) {
    options_.types = {*type};
    return true;
  }
  std::string names;
  for (const TypeInfo& type : all_types()) names += std::string(type.name) + ", ";
  return bad("--datatype", value, "one of " + names + "all");
}

bool Parser::operators(const char* value) {
  if (std::strcmp(value, "all") == 0) {
    options_.ops = {Op::kSum, Op::kProd, Op::kMax, Op::kMin, Op::kAvg, Op::kMulSum};
    return true;
  }
  if (const auto op = find_op(value)) {
    options_.ops = {*op};
    return true;
  }
  return bad("--op", value, "one of sum, prod, max, min, avg, mulsum, band, bor, bxor, all");
}

bool Parser::apply(int flag, const char* name, const char* value) {
  int number = 0;
  switch (flag) {
    case 't':
      return integer(name, value, 1, 4096, &options_.nthreads);
    case 'g':
      return integer(name, value, 1, 4096, &options_.ngpus);
    case 'b':
      return size(name, value, 0, &options_.min_bytes);
    case 'e':
      return size(name, value, 0, &options_.max_bytes);
    case 'i':
      step_bytes_given_ = true;
      return size(name, value, 1, &options_.step_bytes);
    case 'f':
      if (!integer(name, value, 2, 1 << 20, &number)) return false;
      options_.step_factor = static_cast<size_t>(number);
      return true;
    case 'n':
      if (!integer(name, value, 1, INT_MAX, &number)) return false;
      options_.iters = number;
      return true;
    case 'w':
      if (!integer(name, value, 0, INT_MAX, &number)) return false;
      options_.warmup_iters = number;
      return true;
    case 'm':
      return integer(name, value, 1, 1 << 16, &options_.agg_iters);
    case 'N':
      return integer(name, value, 0, INT_MAX, &options_.run_cycles);
    case 'a':
      if (!integer(name, value, 0, 3, &number)) return false;
      options_.average = static_cast<Average>(number);
      return true;
    case 'p':
      return flag01(name, value, &options_.parallel_init);
    case 'c':
      return integer(name, value, 0, INT_MAX, &options_.check);
    case 'o':
      return operators(value);
    case 'd':
      return datatypes(value);
    case 'r':
      if (std::strcmp(value, "all") == 0) {
        options_.root.reset();
        return true;
      }
      if (!parse_int(value) || *parse_int(value) < 0) return bad(name, value, "a rank or all");
      options_.root = parse_int(value);
      return true;
    case 'z':
      return flag01(name, value, &options_.blocking);
    case 'y':
      return flag01(name, value, &null_stream_);
    case 'T':
      return integer(name, value, 0, INT_MAX, &options_.timeout_s);
    case 'G':
      if (!integer(name, value, 0, INT_MAX, &number)) return false;
      return number == 0 || bad(name, value, "0: graphs capture device streams, not host memory");
    case 'C':
      return flag01(name, value, &options_.cpu_time);
    case 'S':
      return flag01(name, value, &options_.timestamps);
    case 'R':
      if (!integer(name, value, 0, 2, &number)) return false;
      options_.registration = static_cast<Registration>(number);
      return true;
    case 'J':
      options_.json_file = value;
      return !options_.json_file.empty() || bad(name, value, "a file name");
    case kProcs:
      if (!integer(name, value, 1, 4096, &number)) return false;
      options_.procs = number;
      return true;
    case kMemory:
      if (std::strcmp(value, "malloc") == 0) {
        options_.memory = Memory::kMalloc;
      } else if (std::strcmp(value, "comm") == 0) {
        options_.memory = Memory::kComm;
      } else {
        return bad(name, value, "malloc or comm");
      }
      return true;
    case kStream:
      options_.host_stream = true;
      return true;
    case kOneWay:
      options_.one_way = true;
      return set_.has_one_way || (error_ = "--one_way is for sendrecv_perf", false);
    default:
      options_.help = true;
      return true;
  }
}

// What depends on several flags.
bool Parser::finish() {
  if (options_.min_bytes > options_.max_bytes) {
    error_ = "invalid sizes for 'minbytes' and 'maxbytes': " + std::to_string(options_.min_bytes) +
             " > " + std::to_string(options_.max_bytes);
    return false;
  }
  if (options_.step_factor > 1 && options_.min_bytes == 0 && options_.max_bytes > 0) {
    error_ = "--minbytes=0 never grows by --stepfactor; start at 1 or use --stepbytes";
    return false;
  }
  if (options_.step_factor > 1 && step_bytes_given_) {
    error_ = "--stepbytes and --stepfactor exclude each other";
    return false;
  }
  if (null_stream_) options_.host_stream = false;
  if (options_.registration == Registration::kSymmetric) options_.memory = Memory::kComm;
  return true;
}

bool Parser::parse(int argc, char** argv) {
  optind = 0;  // start over: glibc keeps its position between calls
  opterr = 0;
  while (true) {
    const int at = std::max(optind, 1);
    int index = -1;
    const int flag = getopt_long(argc, argv, kLetters, kLongOptions, &index);
    if (flag == -1) break;
    if (flag == '?') {
      error_ = std::string("unknown flag, or one without its value: ") +
               argv[std::min(at, argc - 1)] + "; --help lists them";
      return false;
    }
    const auto* named = index >= 0 ? &kLongOptions[index] : kLongOptions;
    while (named->name != nullptr && named->val != flag) ++named;
    if (!apply(flag, (std::string("--") + named->name).c_str(), optarg)) return false;
  }
  if (optind < argc) {
    error_ = std::string("unexpected argument '") + argv[optind] + "'; --help lists the flags";
    return false;
  }
  return options_.help || finish();
}

}  // namespace

std::optional<size_t> parse_size(const char* text) {
  if (*text < '0' || *text > '9') return std::nullopt;  // no sign, space, inf or nan
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  double unit = 1;
  if (*end != '\0') {
    constexpr char kUnits[] = "kmgt";
    const char* found = std::strchr(kUnits, *end | 0x20);
    if (found == nullptr || end[1] != '\0') return std::nullopt;
    unit = std::ldexp(1.0, 10 * static_cast<int>(found - kUnits + 1));
  }
  const double bytes = value * unit;
  if (!(bytes < 0x1p62)) return std::nullopt;
  return static_cast<size_t>(bytes);
}

bool parse_options(int argc, char** argv, const OptionSet& set, Options* options,
                   std::string* error) {
  Parser parser(set, options);
  if (parser.parse(argc, argv)) return true;
  *error = parser.error();
  return false;
}

std::string usage(const OptionSet& set) {
  std::string text = "USAGE: ";
  text += set.program;
  text += R"(
  Ranks: processes * threads * ranks per thread. Under mpirun, srun or torchrun, or with COMM_RANK
  and COMM_NRANKS set, the launcher's processes; otherwise local processes.
	[--procs <local processes>] start this many here, whatever the launcher (default: one per core, at
	    least 2; 1 when -t or -g is given)
	[-t,--nthreads <num threads>] threads per process (1)
	[-g,--ngpus <ranks per thread>] ranks that each thread drives through groups (1)
  Sizes
	[-b,--minbytes <min size in bytes>] (32M)
	[-e,--maxbytes <max size in bytes>] (32M)
	[-i,--stepbytes <increment size>] (1M)
	[-f,--stepfactor <increment factor>]
  Operation
	[-o,--op <sum/prod/max/min/avg/mulsum/band/bor/bxor/all>] (sum; all: those up to mulsum)
	[-d,--datatype <nccltype/all>] (float)
	[-r,--root <root/all>] (0)
  Measurement
	[-n,--iters <iteration count>] (20; without -n 200 up to 64K and fewer, at least 5, above 64M)
	[-w,--warmup_iters <warmup iteration count>] (5; without -w fewer above 64M)
	[-m,--agg_iters <aggregated iteration count>] operations in a group (1)
	[-N,--run_cycles <cycle count>] repeat the whole run; 0: for ever (1)
	[-a,--average <0/1/2/3>] time of 0: rank 0, or over ranks 1: average, 2: least, 3: most (1)
	[-c,--check <check iteration count>] calls per row whose every element is checked (1)
	[-z,--blocking <0/1>] with --stream: wait for each operation (0)
	[-y,--stream_null <0/1>] 1: overrides --stream
	[--stream] queue on a host stream; otherwise each call runs in the calling thread
	[-T,--timeout <seconds>] end the run when a row takes longer (0: never)
	[-G,--cudagraph <0>] accepted as 0
	[-C,--report_cputime <0/1>] processor time of the calling thread instead of elapsed time (0)
	[-S,--report_timestamps <0/1>] a time stamp on each row (0)
	[-p,--parallel_init <0/1>] each thread makes its own communicator (0: one thread, in a group)
	[--memory <malloc/comm>] buffers from malloc or commMemAlloc (malloc)
	[-R,--local_register <0/1/2>] 1: commRegister, 2: commMemAlloc and commWindowRegister (0)
)";
  if (set.has_one_way) {
    text += "\t[--one_way] even ranks send to the next rank, odd ranks receive\n";
  }
  text += "\t[-J,--output_file <file>] also write JSON\n\t[-h,--help]\n";
  return text;
}

int iterations_for(const Options& options, size_t bytes) {
  if (options.iters) return *options.iters;
  if (bytes <= kSmallBytes) return 200;
  if (bytes <= kHugeBytes) return 20;
  return static_cast<int>(std::max<size_t>(5, 20 * kHugeBytes / bytes));
}

int warmups_for(const Options& options, size_t bytes) {
  if (options.warmup_iters) return *options.warmup_iters;
  return bytes <= kHugeBytes ? 5 : 2;
}

Average average_of(const Options& options) {
  // One way, a sender is done when its data is on the way: the receiver has the true time.
  return options.average.value_or(options.one_way ? Average::kMax : Average::kMean);
}

std::vector<size_t> sizes_of(const Options& options) {
  std::vector<size_t> sizes;
  for (size_t size = options.min_bytes; size <= options.max_bytes;) {
    sizes.push_back(size);
    size = options.step_factor > 1 ? size * options.step_factor : size + options.step_bytes;
  }
  return sizes;
}

}  // namespace bench
