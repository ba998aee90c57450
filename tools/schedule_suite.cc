#include "tools/schedule_suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "algorithms/registry.h"

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
  std::vector<std::vector<int>> layouts = {hosts_in_blocks(nranks, {(nranks + 1) / 2})};
  if (nranks <= 64) {
    layouts.push_back({});                                  // one host
    layouts.push_back(hosts_in_blocks(nranks, {1}));        // one rank each
    layouts.push_back(hosts_in_blocks(nranks, {2, 4, 3}));  // uneven
    layouts.push_back(hosts_in_blocks(nranks, {5, 1}));     // extras only on some
    layouts.push_back(hosts_in_turn(nranks, 3));            // ranks of a host are not consecutive
  } else {
    layouts.push_back(hosts_in_blocks(nranks, {8}));
  }
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

}  // namespace libcomm
