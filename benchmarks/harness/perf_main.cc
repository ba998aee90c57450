// The main program that all *_perf programs share: processes, communicators, threads, exit status.
#include <comm.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/harness/bench.h"
#include "benchmarks/harness/collective.h"
#include "benchmarks/harness/options.h"
#include "benchmarks/harness/report.h"
#include "benchmarks/harness/team.h"
#include "benchmarks/harness/watchdog.h"
#include "benchmarks/harness/world.h"

namespace bench {
namespace {

// One process of the run.
class Process {
 public:
  Process(const Collective& collective, const Options& options, std::vector<std::string> args,
          World& world)
      : collective_(collective),
        options_(options),
        args_(std::move(args)),
        world_(world),
        per_process_(options.nthreads * options.ngpus),
        nranks_(per_process_ * world.nprocs()) {}

  int run();

 private:
  bool arguments_fit() const;
  std::vector<std::vector<comm_t>> make_communicators();
  int64_t run_thread(int thread, std::vector<comm_t> comms);
  RunInfo describe(Team& team) const;

  const Collective& collective_;
  const Options& options_;
  std::vector<std::string> args_;
  World& world_;
  int per_process_;
  int nranks_;
  commUniqueId id_{};
  std::unique_ptr<Watchdog> watchdog_;
};

// What only shows once the number of ranks is known.
bool Process::arguments_fit() const {
  if (collective_.rooted && options_.root && *options_.root >= nranks_) {
    if (world_.proc() == 0) {
      std::fprintf(stderr, "%s: --root=%d is not a rank of this run: 0 to %d are\n",
                   collective_.program, *options_.root, nranks_ - 1);
    }
    return false;
  }
  const auto defined = [&](commDataType_t type) {
    return std::any_of(options_.ops.begin(), options_.ops.end(),
                       [&](Op op) { return is_defined(op, type_info(type)); });
  };
  if (collective_.reduces && std::none_of(options_.types.begin(), options_.types.end(), defined)) {
    if (world_.proc() == 0) {
      std::fprintf(stderr, "%s: --op=%s is for integer types, --datatype=%s is not one\n",
                   collective_.program, name_of(options_.ops.front()),
                   type_info(options_.types.front()).name);
    }
    return false;
  }
  return world_.proc() != 0 || options_.json_file.empty() ||
         can_write(collective_.program, options_.json_file);
}

// By thread. Empty vectors where the threads make their own (-p 1).
std::vector<std::vector<comm_t>> Process::make_communicators() {
  std::vector<std::vector<comm_t>> by_thread(static_cast<size_t>(options_.nthreads));
  if (per_process_ == 1) {
    if (comm_t comm = world_.take_launcher_comm(); comm != nullptr) {
      by_thread[0] = {comm};
      return by_thread;
    }
  }
  id_ = world_.make_id();
  if (options_.parallel_init) return by_thread;
  std::vector<comm_t> comms(static_cast<size_t>(per_process_));
  init_ranks(comms, world_.proc() * per_process_, nranks_, id_);
  for (size_t thread = 0; thread < by_thread.size(); ++thread) {
    const auto begin = comms.begin() + static_cast<std::ptrdiff_t>(thread) * options_.ngpus;
    by_thread[thread].assign(begin, begin + options_.ngpus);
  }
  return by_thread;
}

RunInfo Process::describe(Team& team) const {
  RunInfo info;
  info.procs = world_.nprocs();
  info.ranks = team.gather_info();
  const char* version = "";
  require(commGetVersion(&info.api_level), "commGetVersion", 0, nullptr);
  require(commGetLibraryVersion(&version), "commGetLibraryVersion", 0, nullptr);
  info.library_version = version;
  return info;
}

// Returns the wrong values; a JSON file that cannot be written counts as one.
int64_t Process::run_thread(int thread, std::vector<comm_t> comms) {
  const int first = world_.proc() * per_process_ + thread * options_.ngpus;
  if (comms.empty()) {
    comms.resize(static_cast<size_t>(options_.ngpus));
    init_ranks(comms, first, nranks_, id_);
  }
  Team team(comms, first, nranks_, options_.max_bytes, options_);
  const RunInfo info = describe(team);
  std::unique_ptr<Report> report;
  if (team.has_rank0()) {
    report = std::make_unique<Report>(collective_.program, options_, args_, stdout,
                                      isatty(STDERR_FILENO) != 0 ? stderr : nullptr);
    report->header(info);
  }
  int64_t wrong =
      run_bench(collective_, options_, team, report.get(), thread == 0 ? watchdog_.get() : nullptr);
  if (report != nullptr && !options_.json_file.empty() && !report->write_json(options_.json_file)) {
    ++wrong;
  }
  // Nobody leaves while another rank may still talk to it.
  team.barrier();
  return wrong;
}

int Process::run() {
  if (!arguments_fit()) return 1;
  if (options_.timeout_s > 0) {
    watchdog_ =
        std::make_unique<Watchdog>(collective_.program, std::chrono::seconds(options_.timeout_s));
  }
  std::vector<std::vector<comm_t>> comms = make_communicators();
  std::vector<int64_t> wrong(comms.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < comms.size(); ++i) {
    threads.emplace_back(
        [&, i] { wrong[i] = run_thread(static_cast<int>(i), std::move(comms[i])); });
  }
  wrong[0] = run_thread(0, std::move(comms[0]));
  for (std::thread& thread : threads) thread.join();
  return std::all_of(wrong.begin(), wrong.end(), [](int64_t count) { return count == 0; }) ? 0 : 1;
}

}  // namespace

int perf_main(int argc, char** argv, const Collective& collective) {
  const OptionSet set{collective.program, collective.one_way != nullptr};
  const std::vector<std::string> args(argv, argv + argc);
  Options options;
  std::string error;
  if (!parse_options(argc, argv, set, &options, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 2;
  }
  if (options.help) {
    std::fputs(usage(set).c_str(), stdout);
    return 0;
  }
  const Collective& chosen = options.one_way ? *collective.one_way : collective;
  const int default_procs =
      options.nthreads * options.ngpus > 1 ? 1 : std::max(2, available_cores());
  return run_world(collective.program, options.procs, default_procs,
                   [&](World& world) { return Process(chosen, options, args, world).run(); });
}

}  // namespace bench
