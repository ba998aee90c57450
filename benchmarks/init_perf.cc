// How long it takes to make a communicator: rounds of commInitRank by all ranks at once, each with
// a fresh unique id, and what a new communicator holds before its first operation.
#include <comm.h>
#include <getopt.h>

#include <algorithm>
#include <barrier>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/harness/json.h"
#include "benchmarks/harness/world.h"

using namespace bench;

namespace {

constexpr char kProgram[] = "init_perf";
constexpr char kUsage[] =
    "USAGE: init_perf\n"
    "\t[--ranks <threads per process>] each a rank (64; 1 with --procs or a launcher)\n"
    "\t[--procs <local processes>] (1)\n"
    "\t[-n,--iters <rounds>] (5)\n"
    "\t[-w,--warmup_iters <rounds>] not counted (1)\n"
    "\t[-J,--output_file <file>] also write JSON\n"
    "\t[-h,--help]\n";

struct InitOptions {
  std::optional<int> ranks;
  std::optional<int> procs;
  int rounds = 5;
  int warmups = 1;
  std::string json_file;
};

bool parse_count(const char* name, const char* text, int least, int most, int* out) {
  const char* end = text + std::strlen(text);
  const auto [stopped, failure] = std::from_chars(text, end, *out);
  if (failure == std::errc() && stopped == end && *out >= least && *out <= most) return true;
  std::fprintf(stderr, "%s: --%s=%s is not a number from %d to %d\n", kProgram, name, text, least,
               most);
  return false;
}

// Ends the program on --help and on a bad flag.
InitOptions parse(int argc, char** argv) {
  const option flags[] = {{"ranks", required_argument, nullptr, 'r'},
                          {"procs", required_argument, nullptr, 'p'},
                          {"iters", required_argument, nullptr, 'n'},
                          {"warmup_iters", required_argument, nullptr, 'w'},
                          {"output_file", required_argument, nullptr, 'J'},
                          {"help", no_argument, nullptr, 'h'},
                          {nullptr, 0, nullptr, 0}};
  InitOptions options;
  int number = 0;
  for (int flag; (flag = getopt_long(argc, argv, "n:w:J:h", flags, nullptr)) != -1;) {
    bool good = true;
    switch (flag) {
      case 'r':
        good = parse_count("ranks", optarg, 1, 65536, &number);
        options.ranks = number;
        break;
      case 'p':
        good = parse_count("procs", optarg, 1, 4096, &number);
        options.procs = number;
        break;
      case 'n':
        good = parse_count("iters", optarg, 1, 1000000, &options.rounds);
        break;
      case 'w':
        good = parse_count("warmup_iters", optarg, 0, 1000000, &options.warmups);
        break;
      case 'J':
        options.json_file = optarg;
        break;
      case 'h':
        std::fputs(kUsage, stdout);
        std::exit(0);
      default:
        good = false;
    }
    if (!good) std::exit(2);
  }
  if (optind < argc) {
    std::fprintf(stderr, "%s: unexpected argument '%s'; --help lists the flags\n", kProgram,
                 argv[optind]);
    std::exit(2);
  }
  return options;
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

struct Results {
  std::vector<double> init_ms;     // the slowest rank, by round
  std::vector<double> destroy_ms;  // the slowest rank of this process
  commMemStats_t held{};           // by rank 0 after the last round's commInitRank
};

// One process of the run. Its main thread is its first rank.
class InitRounds {
 public:
  InitRounds(World& world, const InitOptions& options, int threads)
      : world_(world),
        options_(options),
        threads_(threads),
        barrier_(threads),
        destroy_ms_(static_cast<size_t>(threads)) {}

  Results run();

 private:
  void one_round(int thread, bool counted);

  World& world_;
  const InitOptions& options_;
  int threads_;
  commUniqueId id_{};
  std::barrier<> barrier_;
  std::vector<double> destroy_ms_;  // by thread, of this round
  Results results_;                 // written by the main thread
};

void InitRounds::one_round(int thread, bool counted) {
  const int rank = world_.proc() * threads_ + thread;
  const int nranks = world_.nprocs() * threads_;
  if (thread == 0) id_ = world_.make_id();
  barrier_.arrive_and_wait();

  comm_t comm = nullptr;
  const double start = now_ms();
  require(commInitRank(&comm, nranks, id_, rank), "commInitRank", rank, nullptr);
  const double own = now_ms() - start;

  commMemStats_t held{};
  held.size = sizeof held;
  require(commGetMemStats(comm, &held), "commGetMemStats", rank, comm);
  double slowest = own;
  require(commAllReduce(&own, &slowest, 1, commFloat64, commMax, comm, nullptr), "commAllReduce",
          rank, comm);
  require(commBarrier(comm, nullptr), "commBarrier", rank, comm);

  const double destroy_start = now_ms();
  require(commDestroy(comm), "commDestroy", rank, nullptr);
  destroy_ms_[static_cast<size_t>(thread)] = now_ms() - destroy_start;
  barrier_.arrive_and_wait();
  if (thread != 0 || !counted) return;
  results_.init_ms.push_back(slowest);
  results_.destroy_ms.push_back(*std::max_element(destroy_ms_.begin(), destroy_ms_.end()));
  results_.held = held;
}

Results InitRounds::run() {
  const auto all_rounds = [this](int thread) {
    for (int round = 0; round < options_.warmups + options_.rounds; ++round) {
      one_round(thread, round >= options_.warmups);
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads_; ++thread) others.emplace_back(all_rounds, thread);
  all_rounds(0);
  for (std::thread& other : others) other.join();
  return results_;
}

void print(const Results& results, int nranks, int procs) {
  const auto [least, most] = std::minmax_element(results.init_ms.begin(), results.init_ms.end());
  const char* version = "";
  require(commGetLibraryVersion(&version), "commGetLibraryVersion", 0, nullptr);
  std::printf("# libcomm version %s\n", version);
  std::printf("# Time from commInitRank's call to its return on the slowest rank\n#\n");
  std::printf("# %6s  %6s  %7s  %7s  %9s  %9s  %9s  %11s  %10s  %8s  %7s  %7s\n", "ranks", "procs",
              "threads", "rounds", "min", "median", "max", "destroy", "host bytes", "channels",
              "sockets", "threads");
  std::printf("# %6s  %6s  %7s  %7s  %9s  %9s  %9s  %11s  %10s  %8s  %7s  %7s\n", "", "", "/proc",
              "", "(ms)", "(ms)", "(ms)", "median (ms)", "of rank 0", "", "", "");
  std::printf("  %6d  %6d  %7d  %7zu  %9.3f  %9.3f  %9.3f  %11.3f  %10zu  %8d  %7d  %7d\n", nranks,
              procs, nranks / procs, results.init_ms.size(), *least, median_of(results.init_ms),
              *most, median_of(results.destroy_ms), results.held.hostBytes, results.held.channels,
              results.held.sockets, results.held.threads);
}

bool write_json(const Results& results, int nranks, int procs, const std::string& path) {
  JsonWriter json;
  json.begin_object().field("version", 1).field("program", kProgram);
  json.field("ranks", nranks).field("procs", procs);
  json.key("init_ms").begin_array();
  for (const double ms : results.init_ms) json.value(ms);
  json.end_array().key("destroy_ms").begin_array();
  for (const double ms : results.destroy_ms) json.value(ms);
  json.end_array().field("median_init_ms", median_of(results.init_ms));
  json.field("host_bytes", results.held.hostBytes).field("channels", results.held.channels);
  json.field("sockets", results.held.sockets).field("threads", results.held.threads).end_object();
  std::ofstream file(path, std::ios::trunc);
  file << json.text() << '\n';
  file.close();
  if (!file) std::fprintf(stderr, "%s: cannot write --output_file=%s\n", kProgram, path.c_str());
  return static_cast<bool>(file);
}

}  // namespace

int main(int argc, char** argv) {
  const InitOptions options = parse(argc, argv);
  return run_world(kProgram, options.procs, 1, [&](World& world) {
    const int threads = options.ranks.value_or(options.procs || world.launched() ? 1 : 64);
    const Results results = InitRounds(world, options, threads).run();
    if (world.proc() != 0) return 0;
    print(results, threads * world.nprocs(), world.nprocs());
    const bool written = options.json_file.empty() || write_json(results, threads * world.nprocs(),
                                                                 world.nprocs(), options.json_file);
    return written ? 0 : 1;
  });
}
