// Proves every algorithm for every listed rank count, then proves the checker: it must reject every
// one of a few hundred seeded corruptions of good schedules.
#include "tools/check_schedules.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "algorithms/registry.h"
#include "src/schedule/checker.h"
#include "tools/schedule_suite.h"

namespace libcomm {

namespace {

constexpr const char* kUsage =
    "usage: comm-check schedules [OPTION...]\n"
    "  --max-ranks N      largest rank count to prove, 1..4096 (1024); beyond that it takes\n"
    "                     minutes and gigabytes\n"
    "  --algorithm NAME   only this one\n"
    "  --mutations N      corrupted schedules that must be rejected, 0..1000000 (500)\n"
    "  --seed N           of the corruptions (1)\n"
    "  --jobs N           threads, 1..256 (one per core)\n";

struct Options {
  int max_ranks = 1024;
  int mutations = 500;
  int seed = 1;
  int jobs = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::string algorithm;
  bool help = false;
};

Status parse_number(std::string_view name, std::string_view text, int least, int most, int* value) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (failure == std::errc() && end == text.data() + text.size() && *value >= least &&
      *value <= most)
    return {};
  return error(Code::kInvalidArgument, "{} {} is not a number in {}..{}", name, text, least, most);
}

Result<Options> parse(const std::vector<std::string_view>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view name = arguments[i];
    if (name == "--help" || name == "-h") {
      options.help = true;
      return options;
    }
    if (i + 1 == arguments.size())
      return error(Code::kInvalidArgument, "{} is not an option, or lacks its value", name);
    const std::string_view value = arguments[++i];
    if (name == "--max-ranks") {
      COMM_TRY(parse_number(name, value, 1, 4096, &options.max_ranks));
    } else if (name == "--mutations") {
      COMM_TRY(parse_number(name, value, 0, 1000000, &options.mutations));
    } else if (name == "--seed") {
      COMM_TRY(parse_number(name, value, 0, 1 << 30, &options.seed));
    } else if (name == "--jobs") {
      COMM_TRY(parse_number(name, value, 1, 256, &options.jobs));
    } else if (name == "--algorithm") {
      if (find_algorithm(value) == nullptr)
        return error(Code::kInvalidArgument, "--algorithm {} is none of the algorithms", value);
      options.algorithm = value;
    } else {
      return error(Code::kInvalidArgument, "{} is not an option", name);
    }
  }
  return options;
}

// Checks all cases on some threads; returns the first failure's text, empty when there is none.
std::string prove(const std::vector<ScheduleCase>& cases, int jobs) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::string failure;
  auto work = [&] {
    for (size_t i = next++; i < cases.size(); i = next++) {
      const ScheduleCase& item = cases[i];
      const std::vector<Schedule> ranks = build_all(*item.algorithm, item.request);
      const Status status = check_both(ranks, item.slices);
      if (status) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      if (failure.empty())
        failure = fmt::format("counter-example for {}\n  {}", to_string(item), status.message());
      next = cases.size();
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < jobs; ++i) threads.emplace_back(work);
  work();
  threads.clear();  // joins
  return failure;
}

// One line per algorithm: what was proved. False after a counter-example.
bool prove_algorithm(const Algorithm& algorithm, const Options& options, size_t* total) {
  std::vector<ScheduleCase> cases;
  std::set<Collective> collectives;
  for (int nranks : schedule_rank_counts(options.max_ranks)) {
    for (const ScheduleCase& item : schedule_cases(nranks, algorithm.name)) {
      cases.push_back(item);
      collectives.insert(item.request.collective);
    }
  }
  // The long ones first, so that the threads end together.
  std::ranges::stable_sort(cases, std::greater<>(),
                           [](const ScheduleCase& item) { return item.request.nranks; });
  const std::string failure = prove(cases, options.jobs);
  std::string names;
  for (Collective collective : collectives) names += fmt::format(" {}", name_of(collective));
  fmt::print("{:<13}{:>6} cases  {}  {}\n", algorithm.name, cases.size(),
             failure.empty() ? "ok    " : "FAILED", names);
  if (!failure.empty()) fmt::print("{}\n", failure);
  std::fflush(stdout);
  *total += cases.size();
  return failure.empty();
}

}  // namespace

int check_schedules(const std::vector<std::string_view>& arguments) {
  const Result<Options> parsed = parse(arguments);
  if (!parsed) {
    fmt::print(stderr, "comm-check: {}\n{}", parsed.status().message(), kUsage);
    return 2;
  }
  const Options& options = *parsed;
  if (options.help) {
    fmt::print("{}", kUsage);
    return 0;
  }
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int> counts = schedule_rank_counts(options.max_ranks);
  std::string large;
  for (int count : counts)
    if (count > 64) large += fmt::format(", {}", count);
  fmt::print("proving 1..{}{} ranks, in and out of place\n", std::min(64, options.max_ranks),
             large);

  bool proved = true;
  size_t total = 0;
  for (const Algorithm& algorithm : algorithms())
    if (options.algorithm.empty() || options.algorithm == algorithm.name)
      proved = prove_algorithm(algorithm, options, &total) && proved;

  const MutationReport report =
      try_mutations(options.mutations, static_cast<uint64_t>(options.seed), options.algorithm);
  fmt::print("corrupted schedules: {} made, {} rejected\n", report.made,
             report.made - static_cast<int>(report.survivors.size()));
  for (const std::string& survivor : report.survivors) fmt::print("not rejected: {}\n", survivor);
  proved = proved && report.survivors.empty();

  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  fmt::print("{}: {} cases in {:.1f} s\n", proved ? "all proved" : "NOT PROVED", total,
             taken.count());
  return proved ? 0 : 1;
}

}  // namespace libcomm
