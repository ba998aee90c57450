#include "tools/schedule_suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "algorithms/registry.h"
#include "src/schedule/checker.h"
#include "src/schedule/mutate.h"

namespace libcomm {

namespace {

bool is_rooted(Collective collective) {
  return collective == Collective::kBroadcast || collective == Collective::kReduce ||
         collective == Collective::kGather || collective == Collective::kScatter;
}

// Ring orders and host layouts must be right in any arrangement; a fixed seed keeps runs alike.
std::vector<int> shuffled(int nranks) {
  std::vector<int> order(static_cast<size_t>(nranks));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(static_cast<unsigned>(nranks));
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

// `sizes` ranks per host in turn, as blocks of consecutive ranks.
std::vector<int> hosts_in_blocks(int nranks, const std::vector<int>& sizes) {
  std::vector<int> host_of;
  for (int host = 0; static_cast<int>(host_of.size()) < nranks; ++host)
    for (int i = 0; i < sizes[static_cast<size_t>(host) % sizes.size()]; ++i)
      if (static_cast<int>(host_of.size()) < nranks) host_of.push_back(host);
  return host_of;
}

std::vector<int> hosts_in_turn(int nranks, int hosts) {
  std::vector<int> host_of;
  for (int rank = 0; rank < nranks; ++rank) host_of.push_back(rank % std::min(hosts, nranks));
  return host_of;
}

std::vector<std::vector<int>> host_layouts(int nranks) {
  if (nranks == 1) return {{}};
  if (nranks > 256) return {hosts_in_blocks(nranks, {8})};
  std::vector<std::vector<int>> layouts = {
      {},                                           // one host
      hosts_in_blocks(nranks, {(nranks + 1) / 2}),  // two
      hosts_in_blocks(nranks, {2, 4, 3}),           // uneven
  };
  if (nranks > 64) return layouts;
  layouts.push_back(hosts_in_blocks(nranks, {1}));     // a host per rank
  layouts.push_back(hosts_in_blocks(nranks, {5, 1}));  // extras on some hosts only
  layouts.push_back(hosts_in_turn(nranks, 3));         // neighbours are not local
  return layouts;
}

std::vector<int> roots(int nranks) {
  if (nranks > 64) return {nranks / 3};
  const std::set<int> distinct = {0, nranks / 2, nranks - 1};
  return {distinct.begin(), distinct.end()};
}

// The variants of one algorithm and collective.
std::vector<ScheduleCase> variants(const Algorithm& algorithm, ScheduleRequest request) {
  const std::string name = algorithm.name;
  const bool small = request.nranks <= 64;
  std::vector<ScheduleCase> cases;
  const bool sliceable = algorithm.build(request, 0).sliceable;
  auto add = [&](const ScheduleRequest& variant, int slices) {
    if (slices > 1 && !sliceable) return;
    cases.push_back({&algorithm, variant, slices});
  };
  add(request, 1);
  if (!small && name != "hierarchical") return cases;
  if (name == "ring") {
    request.lanes = 3;
    add(request, 2);
    request.ring_order = shuffled(request.nranks);
    add(request, 1);
  } else if (name == "tree") {
    request.pipeline = 5;
    add(request, 1);
    request.pipeline = 40;
    add(request, 2);
  } else if (name == "hierarchical") {
    cases.clear();
    for (const std::vector<int>& layout : host_layouts(request.nranks)) {
      request.host_of = layout;
      request.lanes = small ? 2 : 1;
      add(request, 1);
    }
  } else if (request.nranks <= 16) {
    add(request, 2);
  }
  return cases;
}

}  // namespace

std::vector<ScheduleCase> schedule_cases(int nranks, const std::string& algorithm) {
  std::vector<ScheduleCase> cases;
  for (const Algorithm& candidate : algorithms()) {
    if (!algorithm.empty() && algorithm != candidate.name) continue;
    for (int c = 0; c < kNumCollectives; ++c) {
      ScheduleRequest request;
      request.collective = static_cast<Collective>(c);
      request.nranks = nranks;
      if (!candidate.supports(request)) continue;
      for (int root : is_rooted(request.collective) ? roots(nranks) : std::vector<int>{0}) {
        request.root = root;
        const std::vector<ScheduleCase> some = variants(candidate, request);
        cases.insert(cases.end(), some.begin(), some.end());
      }
    }
  }
  return cases;
}

std::vector<int> schedule_rank_counts(int max_ranks) {
  std::vector<int> counts(64);
  std::iota(counts.begin(), counts.end(), 1);
  for (int large : {100, 128, 255, 256, 1000, 1024, 2048, 4096}) counts.push_back(large);
  std::erase_if(counts, [&](int n) { return n > max_ranks; });
  return counts;
}

std::string to_string(const ScheduleCase& c) {
  std::string text = fmt::format("{} by {}, {} ranks", name_of(c.request.collective),
                                 c.algorithm->name, c.request.nranks);
  if (is_rooted(c.request.collective)) text += fmt::format(", root {}", c.request.root);
  if (c.request.lanes != 1) text += fmt::format(", {} lanes", c.request.lanes);
  if (c.request.pipeline != 1) text += fmt::format(", pipeline {}", c.request.pipeline);
  if (!c.request.ring_order.empty()) text += ", shuffled ring";
  if (!c.request.host_of.empty() && c.request.nranks <= 64)
    text += fmt::format(", hosts {}", fmt::join(c.request.host_of, " "));
  if (c.slices != 1) text += fmt::format(", {} slices", c.slices);
  return text;
}

MutationReport try_mutations(int count, uint64_t seed, const std::string& algorithm) {
  MutationReport report;
  std::vector<ScheduleCase> cases;
  for (int nranks : {3, 4, 5, 6, 7, 8, 12}) {
    const std::vector<ScheduleCase> some = schedule_cases(nranks, algorithm);
    cases.insert(cases.end(), some.begin(), some.end());
  }
  if (cases.empty()) return report;
  std::mt19937_64 random(seed);
  // Kinds in turn: a kind that fits few schedules is tried as often as the others. Some have
  // nothing to mutate, so the tries are bounded too.
  for (int tries = 0; report.made < count && tries < 50 * count; ++tries) {
    const ScheduleCase& chosen = cases[random() % cases.size()];
    const auto kind = static_cast<Mutation>(tries % static_cast<int>(Mutation::kCount));
    std::vector<Schedule> ranks = build_all(*chosen.algorithm, chosen.request);
    std::string what;
    if (!mutate(&ranks, kind, random(), &what)) continue;
    ++report.made;
    if (check_both(ranks, chosen.slices))
      report.survivors.push_back(fmt::format("{}: {}", to_string(chosen), what));
  }
  return report;
}

}  // namespace libcomm
