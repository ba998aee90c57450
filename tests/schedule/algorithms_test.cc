// Every algorithm is proved for the rank counts that fit into a test; comm-check does the rest.
#include <gtest/gtest.h>

#include <set>

#include "algorithms/registry.h"
#include "src/schedule/builder.h"
#include "src/schedule/checker.h"
#include "src/schedule/fuse.h"
#include "tools/schedule_suite.h"

namespace libcomm {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMaxRanks = 10;
#else
constexpr int kMaxRanks = 20;
#endif

class EveryAlgorithm : public testing::TestWithParam<const char*> {};

TEST_P(EveryAlgorithm, IsProvedFusedAndUnfused) {
  std::vector<int> counts;
  for (int nranks = 1; nranks <= kMaxRanks; ++nranks) counts.push_back(nranks);
  counts.push_back(33);
  for (int nranks : counts) {
    for (const ScheduleCase& item : schedule_cases(nranks, GetParam())) {
      std::vector<Schedule> ranks = build_all(*item.algorithm, item.request);
      const Status fused = check_both(ranks, item.slices);
      ASSERT_TRUE(fused) << to_string(item) << ": " << fused.message();
      for (Schedule& schedule : ranks) unfuse(&schedule);
      const Status plain = check_both(ranks, item.slices);
      ASSERT_TRUE(plain) << to_string(item) << ", unfused: " << plain.message();
    }
  }
}

TEST_P(EveryAlgorithm, IsProvedWithItsRepeatsWrittenOut) {
  for (const ScheduleCase& item : schedule_cases(9, GetParam())) {
    std::vector<Schedule> ranks = build_all(*item.algorithm, item.request);
    for (Schedule& schedule : ranks) unroll(&schedule);
    const Status status = check_both(ranks, item.slices);
    ASSERT_TRUE(status) << to_string(item) << ": " << status.message();
  }
}

TEST_P(EveryAlgorithm, SaysItsNameInItsSchedules) {
  for (const ScheduleCase& item : schedule_cases(4, GetParam()))
    EXPECT_EQ(item.algorithm->build(item.request, 0).algorithm, GetParam());
}

std::vector<const char*> names() {
  std::vector<const char*> result;
  for (const Algorithm& algorithm : algorithms()) result.push_back(algorithm.name);
  return result;
}
INSTANTIATE_TEST_SUITE_P(Registry, EveryAlgorithm, testing::ValuesIn(names()),
                         [](const auto& parameter) { return std::string(parameter.param); });

TEST(Registry, ListsTheAlgorithmsThatCommAlgoNames) {
  for (const char* name : {"ring", "hd", "rd", "tree", "oneshot", "twoshot", "star", "pairwise",
                           "bruck", "binomial", "hierarchical"})
    EXPECT_NE(find_algorithm(name), nullptr) << name;
  EXPECT_EQ(find_algorithm("rings"), nullptr);
  EXPECT_EQ(find_algorithm(""), nullptr);
}

TEST(Registry, HasAnAlgorithmForEveryCollectiveAndAnyNumberOfRanks) {
  for (int c = 0; c < kNumCollectives; ++c) {
    const auto collective = static_cast<Collective>(c);
    if (collective == Collective::kBarrier || collective == Collective::kSendRecv) continue;
    ScheduleRequest request;
    request.collective = collective;
    request.nranks = 100000;
    int found = 0;
    for (const Algorithm& algorithm : algorithms()) found += algorithm.supports(request);
    EXPECT_GE(found, 1) << name_of(collective);
  }
}

TEST(Ring, TakesAHandfulOfEntriesOnAHundredThousandRanks) {
  for (Collective collective :
       {Collective::kAllReduce, Collective::kAllGather, Collective::kReduceScatter}) {
    ScheduleRequest request;
    request.collective = collective;
    request.nranks = 131072;
    EXPECT_LE(find_algorithm("ring")->build(request, 77777).lanes[0].steps.size(), 8u);
  }
}

TEST(Direct, TakesAHandfulOfEntriesOnAHundredThousandRanks) {
  ScheduleRequest request;
  request.collective = Collective::kAllToAll;
  request.nranks = 131072;
  for (const char* name : {"pairwise", "oneshot"})
    EXPECT_LE(find_algorithm(name)->build(request, 5).lanes[0].steps.size(), 8u);
}

TEST(Ring, HonoursLanesAndRingOrder) {
  ScheduleRequest request;
  request.nranks = 4;
  request.lanes = 3;
  request.ring_order = {2, 0, 3, 1};
  const Schedule schedule = find_algorithm("ring")->build(request, 0);
  ASSERT_EQ(schedule.lanes.size(), 3u);
  for (const Lane& lane : schedule.lanes) {
    for (const Step& step : lane.steps) {
      if (step.kind == StepKind::kSend) {
        EXPECT_EQ(step.peer, 3);
      }
      if (step.kind == StepKind::kRecv) {
        EXPECT_EQ(step.peer, 2);
      }
    }
  }
}

TEST(Ring, NeedsNoScratchForAllReduceAndTwoBlocksForReduceScatter) {
  ScheduleRequest request;
  request.nranks = 9;
  EXPECT_EQ(find_algorithm("ring")->build(request, 4).scratch_banks, 0);
  request.collective = Collective::kReduceScatter;
  const std::vector<ScratchUse> use = scratch_use(find_algorithm("ring")->build(request, 4));
  ASSERT_EQ(use.size(), 1u);
  EXPECT_EQ(use[0].count, 2);
}

TEST(Oneshot, ReducesAllContributionsInOneStep) {
  ScheduleRequest request;
  request.nranks = 6;
  for (const char* name : {"oneshot", "twoshot"}) {
    const Schedule schedule = find_algorithm(name)->build(request, 2);
    int reductions = 0;
    for (const Step& step : schedule.lanes[0].steps) {
      if (step.kind == StepKind::kReduce) {
        EXPECT_EQ(step.operands, 6);
      }
      reductions += step.kind == StepKind::kReduce || step.kind == StepKind::kRecvReduce;
    }
    EXPECT_EQ(reductions, 1) << name;
  }
  EXPECT_EQ(find_algorithm("oneshot")->build(request, 2).fused, Fused::kOneshotAllReduce);
  EXPECT_EQ(find_algorithm("twoshot")->build(request, 2).fused, Fused::kTwoshotAllReduce);
}

TEST(Twoshot, GivesShareRToRankR) {
  ScheduleRequest request;
  request.nranks = 5;
  for (int rank = 0; rank < 5; ++rank) {
    const Schedule schedule = find_algorithm("twoshot")->build(request, rank);
    for (const Step& step : schedule.lanes[0].steps) {
      if (step.kind == StepKind::kReduce) {
        EXPECT_EQ(step.dst, out(rank));
      }
    }
  }
}

TEST(Tree, UsesEveryRankAsAnInnerNodeOfAtMostOneTreeIfTheNumberAllowsIt) {
  ScheduleRequest request;
  request.collective = Collective::kBroadcast;
  request.nranks = 17;
  for (int rank = 1; rank < request.nranks; ++rank) {
    const Schedule schedule = find_algorithm("tree")->build(request, rank);
    int inner = 0;
    for (const Lane& lane : schedule.lanes) {
      bool sends = false;
      for (const Step& step : lane.steps)
        sends = sends || step.kind == StepKind::kSend || step.kind == StepKind::kRecvCopySend;
      inner += sends;
    }
    EXPECT_LE(inner, 1) << "rank " << rank;
  }
}

}  // namespace
}  // namespace libcomm
