// Shows whether RDMA works between ranks, and says in words what is wrong: each host's devices and
// limits, then bandwidth and latency of pairs of ranks over the real transport.
#include "tools/check_rdma.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "tools/rdma/host_report.h"
#include "tools/rdma/local_ranks.h"
#include "tools/rdma/pair_report.h"

namespace libcomm {
namespace {

constexpr const char* kUsage =
    "usage: comm-check rdma [OPTION...]\n"
    "Started by a launcher (COMM_RANK, mpirun, srun, torchrun), on all hosts; otherwise it starts\n"
    "ranks on this host.\n"
    "  --ranks N      so many ranks on this host, without a launcher, 1..64 (2)\n"
    "  --bytes SIZE   of the messages that bandwidth is measured with, 4K..64M (1M)\n"
    "  --count N      of these messages, each way, 1..1000000 (64)\n"
    "Exit status: 0 RDMA works between all ranks, 1 something is wrong, 2 wrong usage.\n";

struct Options {
  int ranks = 2;
  PairLoad load;
  bool help = false;
};

Status parse_number(std::string_view name, std::string_view text, int most, int* value) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (failure == std::errc() && end == text.data() + text.size() && *value >= 1 && *value <= most)
    return Status::ok();
  return error(Code::kInvalidArgument, "{} {} is not a number in 1..{}", name, text, most);
}

Result<Options> parse(const std::vector<std::string_view>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view name = arguments[i];
    if (name == "--help" || name == "-h") {
      options.help = true;
      return options;
    }
    const bool known = name == "--ranks" || name == "--bytes" || name == "--count";
    if (!known) return error(Code::kInvalidArgument, "{} is not an option", name);
    if (i + 1 == arguments.size()) return error(Code::kInvalidArgument, "{} lacks its value", name);
    const std::string_view value = arguments[++i];
    if (name == "--ranks") COMM_TRY(parse_number(name, value, 64, &options.ranks));
    if (name == "--count") COMM_TRY(parse_number(name, value, 1'000'000, &options.load.count));
    if (name == "--bytes") {
      uint64_t bytes = 0;
      if (!parse_size(value, &bytes) || bytes < (4 << 10) || bytes > (64 << 20))
        return error(Code::kInvalidArgument, "--bytes {} is not a size in 4K..64M", value);
      options.load.bytes = bytes;
    }
  }
  return options;
}

// The memory of the measurement, registered for as long as it lasts.
class OneBuffer final : public UserMemory {
 public:
  explicit OneBuffer(size_t bytes) : memory_(bytes) {}
  std::byte* data() { return memory_.data(); }

  bool find(const void* address, size_t bytes, Range* range) const override {
    const auto* at = static_cast<const std::byte*>(address);
    if (at < memory_.data() || bytes > memory_.size() ||
        static_cast<size_t>(at - memory_.data()) > memory_.size() - bytes)
      return false;
    *range = {1, const_cast<std::byte*>(memory_.data()), memory_.size()};
    return true;
  }
  bool is_live(uint64_t id) const override { return id == 1; }
  uint64_t ended() const override { return 0; }

 private:
  std::vector<std::byte> memory_;
};

std::string host_name() {
  char name[256] = "";
  (void)::gethostname(name, sizeof name - 1);
  return name;
}

// What the hosts say, each once.
void print_hosts(const std::vector<std::string>& hosts, const std::vector<std::string>& reports) {
  std::map<std::pair<std::string, std::string>, std::string> ranks;
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    std::string& list = ranks[{hosts[rank], reports[rank]}];
    list += fmt::format("{}{}", list.empty() ? "" : ", ", rank);
  }
  for (const auto& [host, list] : ranks)
    fmt::print("host {}, rank {}\n{}\n", host.first, list, host.second);
}

// Rank 0 prints; every rank returns the same.
class Check {
 public:
  Check(const Options& options, std::shared_ptr<const Knobs> knobs)
      : options_(options), knobs_(std::move(knobs)) {}

  Result<bool> run(const Rendezvous& rendezvous, int rank, int nranks) {
    COMM_ASSIGN(bootstrap_, Bootstrap::join(rendezvous, rank, nranks, knobs_,
                                            [this](News, const Status&) { gone_ = true; }));
    COMM_TRY(compare_hosts());
    const auto memory = std::make_shared<OneBuffer>(options_.load.bytes);
    COMM_ASSIGN(const auto transport, rdma::make_rdma_transport(*bootstrap_, {knobs_, memory, -1}));
    if (nranks == 1) {
      say("one rank: nothing to measure");
    } else if (!transport) {
      complaints_ += "  RDMA is not used between these ranks: sockets are\n";
    } else {
      COMM_TRY(measure(*transport, memory->data()));
    }
    if (leads() && !complaints_.empty()) fmt::print("wrong:\n{}", complaints_);
    if (leads() && complaints_.empty()) fmt::print("RDMA works between all ranks\n");
    bootstrap_->leave();
    return complaints_.empty();
  }

 private:
  bool leads() const { return bootstrap_->rank() == 0; }
  void say(const char* text) const {
    if (leads()) fmt::print("{}\n", text);
  }

  Status compare_hosts() {
    const HostReport mine = report_rdma_host(*knobs_);
    const std::string text =
        mine.text + (mine.complaints.empty() ? "" : "  wrong:\n" + mine.complaints);
    COMM_ASSIGN(const auto hosts, bootstrap_->all_gather_text(host_name()));
    COMM_ASSIGN(const auto reports, bootstrap_->all_gather_text(text));
    COMM_ASSIGN(const auto usable, bootstrap_->all_gather_text(mine.usable ? "yes" : "no"));
    if (leads()) print_hosts(hosts, reports);
    for (size_t rank = 0; rank < usable.size(); ++rank)
      if (usable[rank] != "yes")
        complaints_ +=
            fmt::format("  rank {} on {} has no port that works: see above\n", rank, hosts[rank]);
    return Status::ok();
  }

  Status measure(rdma::RdmaTransport& transport, std::byte* memory) {
    std::string mine;
    for (const auto& [a, b] : pairs_of(bootstrap_->nranks())) {
      const int rank = bootstrap_->rank();
      if (rank == a || rank == b)
        mine +=
            measure_pair(*bootstrap_, transport, rank == a ? b : a, options_.load, memory, gone_)
                .encode() +
            '\n';
      COMM_TRY(bootstrap_->barrier());
    }
    COMM_ASSIGN(const auto texts, bootstrap_->all_gather_text(mine));
    std::vector<PairResult> results;
    for (const std::string& text : texts) {
      for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
        COMM_ASSIGN(PairResult one, PairResult::decode(text.substr(at, text.find('\n', at) - at)));
        results.push_back(std::move(one));
      }
    }
    const PairReport report = report_pairs(results);
    if (leads()) fmt::print("{}\n", report.text);
    if (leads() && !report.remarks.empty()) fmt::print("look at:\n{}\n", report.remarks);
    complaints_ += report.complaints;
    return Status::ok();
  }

  const Options& options_;
  const std::shared_ptr<const Knobs> knobs_;
  std::atomic<bool> gone_{false};
  std::unique_ptr<Bootstrap> bootstrap_;
  std::string complaints_;
};

Result<bool> check(const Options& options) {
  COMM_ASSIGN(const auto knobs, Knobs::load());
  COMM_ASSIGN(const LauncherInfo launcher, join_launcher(*knobs));
  if (launcher.launcher != "none") {
    Check all(options, knobs);
    return all.run(launcher.rendezvous, launcher.rank, launcher.nranks);
  }
  COMM_ASSIGN(const auto ranks, LocalRanks::start(options.ranks));
  COMM_ASSIGN(const Rendezvous rendezvous, ranks->rendezvous(*knobs));
  Check all(options, knobs);
  auto good = all.run(rendezvous, ranks->rank(), options.ranks);
  std::fflush(stdout);
  if (good) (void)ranks->wait();  // they say the same
  return good;
}

}  // namespace

int check_rdma(const std::vector<std::string_view>& arguments) {
  const auto options = parse(arguments);
  if (!options) {
    fmt::print(stderr, "comm-check rdma: {}\n\n{}", options.status().message(), kUsage);
    return 2;
  }
  if (options->help) {
    fmt::print("{}", kUsage);
    return 0;
  }
  const auto good = check(*options);
  if (!good) {
    fmt::print(stderr, "comm-check rdma: {}\n", good.status().to_string());
    return 1;
  }
  return *good ? 0 : 1;
}

}  // namespace libcomm
