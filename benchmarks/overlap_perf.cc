// How much of an all-reduce a rank's own computing hides: the all-reduce is queued on a host
// stream, the rank computes, then it waits for the stream. Beside it, in the same rounds, the two
// alone.
//
// hidden = (communication + computation - both) / communication, where the computation is made to
// take as long as the communication. 100 %: computing costs the all-reduce nothing, and the other
// way round. Ranks that compute need a core each; what moves the bytes needs some of it too.
#include <comm.h>
#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "benchmarks/harness/world.h"

using namespace bench;

namespace {

constexpr char kProgram[] = "overlap_perf";
constexpr char kUsage[] =
    "USAGE: overlap_perf\n"
    "\t[--procs <local processes>] each a rank (2)\n"
    "\t[-b,--minbytes <bytes>] (65536)\n"
    "\t[-e,--maxbytes <bytes>] (16777216)\n"
    "\t[-f,--stepfactor <factor>] (4)\n"
    "\t[-n,--iters <rounds>] (15)\n"
    "\t[-h,--help]\n";

struct OverlapOptions {
  std::optional<int> procs;
  size_t min_bytes = size_t{64} << 10;
  size_t max_bytes = size_t{16} << 20;
  size_t factor = 4;
  size_t rounds = 15;
};

// A number with an optional K, M or G.
size_t parse_size(const char* name, const char* text, size_t least) {
  const char* end = text + std::strlen(text);
  size_t value = 0;
  auto [stopped, failure] = std::from_chars(text, end, value);
  int shift = 0;
  if (failure == std::errc() && stopped + 1 == end) {
    if (*stopped == 'K') shift = 10;
    if (*stopped == 'M') shift = 20;
    if (*stopped == 'G') shift = 30;
    if (shift > 0) ++stopped;
  }
  constexpr size_t kMost = size_t{1} << 33;
  if (failure == std::errc() && stopped == end && value <= kMost >> shift &&
      value << shift >= least)
    return value << shift;
  std::fprintf(stderr, "%s: %s %s is not a number from %zu to 8G\n", kProgram, name, text, least);
  std::exit(2);
}

OverlapOptions parse(int argc, char** argv) {
  const option flags[] = {{"procs", required_argument, nullptr, 'p'},
                          {"minbytes", required_argument, nullptr, 'b'},
                          {"maxbytes", required_argument, nullptr, 'e'},
                          {"stepfactor", required_argument, nullptr, 'f'},
                          {"iters", required_argument, nullptr, 'n'},
                          {"help", no_argument, nullptr, 'h'},
                          {nullptr, 0, nullptr, 0}};
  OverlapOptions options;
  for (int flag; (flag = getopt_long(argc, argv, "b:e:f:n:h", flags, nullptr)) != -1;) {
    switch (flag) {
      case 'p':
        options.procs = static_cast<int>(std::min(parse_size("--procs", optarg, 1), size_t{4096}));
        break;
      case 'b':
        options.min_bytes = parse_size("--minbytes", optarg, sizeof(float));
        break;
      case 'e':
        options.max_bytes = parse_size("--maxbytes", optarg, sizeof(float));
        break;
      case 'f':
        options.factor = parse_size("--stepfactor", optarg, 2);
        break;
      case 'n':
        options.rounds = parse_size("--iters", optarg, 1);
        break;
      case 'h':
        std::fputs(kUsage, stdout);
        std::exit(0);
      default:
        std::exit(2);
    }
  }
  if (optind < argc) {
    std::fprintf(stderr, "%s: unexpected argument '%s'; --help lists the flags\n", kProgram,
                 argv[optind]);
    std::exit(2);
  }
  return options;
}

double now_us() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Arithmetic on data that stays in the nearest cache.
class Computation {
 public:
  void run(size_t turns) {
    for (size_t turn = 0; turn < turns; ++turn)
      for (float& x : data_) x = x * 0.999f + 0.001f;
    if (data_[0] > 2) std::abort();  // so that nothing is left out
  }
  // Turns that take about `us`.
  size_t turns_for(double us) {
    constexpr size_t kProbe = 2000;
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const double start = now_us();
      run(kProbe);
      times.push_back(now_us() - start);
    }
    return std::max<size_t>(1, static_cast<size_t>(us / median_of(times) * kProbe));
  }

 private:
  std::vector<float> data_ = std::vector<float>(1024, 1.0f);
};

class Overlap {
 public:
  Overlap(comm_t comm, int rank, const OverlapOptions& options)
      : comm_(comm), rank_(rank), options_(options) {
    check(commHostStreamCreate(&stream_), "commHostStreamCreate");
  }
  ~Overlap() { (void)commHostStreamDestroy(stream_); }
  Overlap(const Overlap&) = delete;
  Overlap& operator=(const Overlap&) = delete;

  bool all_right() const { return right_; }

  void row(size_t bytes) {
    const size_t count = bytes / sizeof(float);
    in_.assign(count, static_cast<float>(rank_ + 1));
    out_.assign(count, 0);
    std::vector<double> alone;
    for (size_t round = 0; round < options_.rounds + 2; ++round) {
      const double us = timed([&] { exchange([] {}); });
      if (round >= 2) alone.push_back(us);  // the first ones warm up
    }
    size_t turns = most(computation_.turns_for(most(median_of(alone))));
    std::vector<double> communication, computing, both;
    for (size_t round = 0; round < options_.rounds; ++round) {
      communication.push_back(timed([&] { exchange([] {}); }));
      computing.push_back(timed([&] { computation_.run(turns); }));
      both.push_back(timed([&] { exchange([&] { computation_.run(turns); }); }));
    }
    verify(count);
    const double comm_us = median_of(communication), compute_us = median_of(computing);
    const double both_us = median_of(both);
    const double hidden = (comm_us + compute_us - both_us) / std::min(comm_us, compute_us);
    if (rank_ == 0)
      std::printf("  %12zu  %12.1f  %12.1f  %12.1f  %8.0f\n", bytes, comm_us, compute_us, both_us,
                  100 * std::clamp(hidden, 0.0, 1.0));
  }

 private:
  void check(commResult_t result, const char* call) const { require(result, call, rank_, comm_); }

  template <typename Work>
  void exchange(Work&& work) {
    check(commAllReduce(in_.data(), out_.data(), in_.size(), commFloat, commSum, comm_, stream_),
          "commAllReduce");
    work();
    check(commHostStreamSynchronize(stream_), "commHostStreamSynchronize");
  }

  // The slowest rank's microseconds; all begin together.
  template <typename Work>
  double timed(Work&& work) {
    check(commBarrier(comm_, nullptr), "commBarrier");
    const double start = now_us();
    work();
    return most(now_us() - start);
  }

  template <typename T>
  T most(T value) {
    double mine = static_cast<double>(value), all = 0;
    check(commAllReduce(&mine, &all, 1, commDouble, commMax, comm_, nullptr), "commAllReduce");
    return static_cast<T>(all);
  }

  void verify(size_t count) {
    int nranks = 0;
    check(commCount(comm_, &nranks), "commCount");
    const auto wanted = static_cast<float>(nranks * (nranks + 1) / 2);
    for (size_t i = 0; i < count && right_; ++i) {
      if (out_[i] == wanted) continue;
      std::fprintf(stderr, "%s: rank %d: element %zu is %g instead of %g\n", kProgram, rank_, i,
                   static_cast<double>(out_[i]), static_cast<double>(wanted));
      right_ = false;
    }
  }

  comm_t comm_;
  int rank_;
  const OverlapOptions& options_;
  cudaStream_t stream_ = nullptr;
  Computation computation_;
  std::vector<float> in_, out_;
  bool right_ = true;
};

int run_rank(World& world, const OverlapOptions& options) {
  comm_t comm = world.take_launcher_comm();
  if (comm == nullptr)
    require(commInitRank(&comm, world.nprocs(), world.make_id(), world.proc()), "commInitRank",
            world.proc(), nullptr);
  bool right = true;
  {
    Overlap overlap(comm, world.proc(), options);
    if (world.proc() == 0) {
      std::printf("# float sum all-reduce on a host stream, %d ranks; medians of %zu rounds, us\n",
                  world.nprocs(), options.rounds);
      std::printf("# %12s  %12s  %12s  %12s  %8s\n", "bytes", "all-reduce", "computing", "together",
                  "hidden %");
    }
    for (size_t bytes = options.min_bytes; bytes <= options.max_bytes; bytes *= options.factor)
      overlap.row(bytes);
    right = overlap.all_right();
  }
  require(commDestroy(comm), "commDestroy", world.proc(), nullptr);
  return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const OverlapOptions options = parse(argc, argv);
  return run_world(kProgram, options.procs, 2,
                   [&](World& world) { return run_rank(world, options); });
}
