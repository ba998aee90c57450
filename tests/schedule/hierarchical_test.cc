// The two-level algorithm on hosts of different sizes: right, and sparing with the network.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "algorithms/registry.h"
#include "src/schedule/builder.h"
#include "src/schedule/checker.h"
#include "src/schedule/fuse.h"

namespace libcomm {
namespace {

struct Layout {
  const char* name;
  std::vector<int> host_of;
};

const Layout kLayouts[] = {
    {"one host", {0, 0, 0, 0, 0}},
    {"one rank per host", {0, 1, 2, 3, 4}},
    {"even", {0, 0, 1, 1, 2, 2}},
    {"uneven", {0, 0, 0, 0, 1, 2, 2}},
    {"interleaved", {0, 1, 0, 1, 2, 0, 2, 1, 0}},
    {"one crowded host", {0, 1, 1, 1, 1, 1, 1, 1}},
    {"two and five", {1, 1, 0, 1, 0, 1, 1}},
};

ScheduleRequest request_for(const Layout& layout, Collective collective) {
  ScheduleRequest request;
  request.collective = collective;
  request.nranks = static_cast<int>(layout.host_of.size());
  request.host_of = layout.host_of;
  return request;
}

// Chunks that each rank sends to another host.
std::vector<int> network_chunks(const std::vector<Schedule>& ranks, const Layout& layout) {
  std::vector<int> chunks(ranks.size());
  for (Schedule schedule : ranks) {
    unroll(&schedule);
    const size_t rank = static_cast<size_t>(schedule.rank);
    for (const Lane& lane : schedule.lanes) {
      for (const Step& step : lane.steps) {
        int to = -1;
        if (step.kind == StepKind::kSend) to = step.peer;
        if (step.kind == StepKind::kRecvReduceSend || step.kind == StepKind::kRecvCopySend)
          to = step.peer2;
        if (to >= 0 && layout.host_of[static_cast<size_t>(to)] != layout.host_of[rank])
          chunks[rank] += step.count;
      }
    }
  }
  return chunks;
}

TEST(Hierarchical, IsRightOnUnevenHostsForEveryRoot) {
  const Algorithm& algorithm = *find_algorithm("hierarchical");
  for (const Layout& layout : kLayouts) {
    for (int c = 0; c < kNumCollectives; ++c) {
      ScheduleRequest request = request_for(layout, static_cast<Collective>(c));
      if (!algorithm.supports(request)) continue;
      for (int lanes : {1, 3}) {
        request.lanes = lanes;
        for (request.root = 0; request.root < request.nranks; ++request.root) {
          const Status status = check_both(build_all(algorithm, request));
          ASSERT_TRUE(status) << layout.name << ", root " << request.root << ": "
                              << status.message();
        }
      }
    }
  }
}

TEST(Hierarchical, SharesTheNetworkAmongTheLocalRanks) {
  const Layout& layout = kLayouts[2];  // 3 hosts of 2
  const std::vector<int> chunks = network_chunks(
      build_all(*find_algorithm("hierarchical"), request_for(layout, Collective::kAllReduce)),
      layout);
  // 2 shards of 3 chunks each: every rank passes 2(3-1) chunks of its shard on.
  for (int count : chunks) EXPECT_EQ(count, 4);
}

TEST(Hierarchical, UsesAsManyNetworkPathsAsTheSmallestHostHas) {
  const Layout& layout = kLayouts[6];  // hosts of 2 and 5
  const std::vector<int> chunks = network_chunks(
      build_all(*find_algorithm("hierarchical"), request_for(layout, Collective::kAllReduce)),
      layout);
  EXPECT_EQ(std::ranges::count_if(chunks, [](int count) { return count > 0; }), 4);
}

TEST(Hierarchical, CrossesTheNetworkOncePerHostInABroadcast) {
  const Layout& layout = kLayouts[4];  // 3 hosts
  ScheduleRequest request = request_for(layout, Collective::kBroadcast);
  request.root = 5;
  int crossings = 0;
  for (int count : network_chunks(build_all(*find_algorithm("hierarchical"), request), layout))
    crossings += count;
  EXPECT_EQ(crossings, 2);
}

TEST(Hierarchical, BringsEachBlockToEachHostOnceInAnAllGather) {
  const Layout& layout = kLayouts[3];  // 3 hosts, 7 blocks
  int crossings = 0;
  for (int count : network_chunks(
           build_all(*find_algorithm("hierarchical"), request_for(layout, Collective::kAllGather)),
           layout))
    crossings += count;
  EXPECT_EQ(crossings, 7 * 2);
}

}  // namespace
}  // namespace libcomm
