// The chooser: what is stronger than what, that all ranks choose alike, and that sums are added in
// an order that neither what carries the bytes nor a crowded host changes.
#include "src/plan/chooser.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include "src/plan/planner.h"
#include "tests/plan/groups.h"

namespace libcomm::test {
namespace {

using testing::HasSubstr;

TuningTable table_of(const std::string& rows) {
  auto table = TuningTable::parse("libcomm tuning table 1: a machine\n" + rows, "FILE");
  EXPECT_TRUE(table.is_ok()) << table.status().message();
  return *table;
}

Decision choose(const Chooser& chooser, const Call& call) {
  auto decision = chooser.choose(call);
  EXPECT_TRUE(decision.is_ok()) << decision.status().message();
  return decision ? *decision : Decision();
}

// At INFO, since reasons are made only when somebody reads them.
class ChooserTest : public testing::Test {
 protected:
  ChooserTest() {
    setenv("COMM_DEBUG", "INFO", 1);
    setenv("COMM_DEBUG_FILE", "/dev/null", 1);
  }
  ~ChooserTest() override {
    unsetenv("COMM_DEBUG");
    unsetenv("COMM_DEBUG_FILE");
    knobs_with();  // sets the log
  }
};

TEST_F(ChooserTest, AnyCallOfAnyGroupHasAWayAndAPrice) {
  for (const int nranks : {2, 3, 4, 8, 300}) {
    for (const GroupShape& shape : {on_board(nranks), on_sockets(nranks), on_hosts(nranks, 2)}) {
      const Chooser chooser(shape, knobs_with(), AlgorithmChoice(), {});
      for (const Collective collective : collectives()) {
        for (const size_t bytes : {size_t{0}, size_t{4}, size_t{40000}, size_t{1} << 33}) {
          const Call call = Call::of(collective, bytes, shape.nranks);
          const Decision decision = choose(chooser, call);
          EXPECT_EQ(chooser.route_of(decision.way, call), decision.route)
              << name_of(collective) << ' ' << name_of(decision.way);
          EXPECT_GT(decision.estimated_us, 0);
          EXPECT_THAT(decision.reason, HasSubstr("cost model"));
        }
      }
    }
  }
}

TEST_F(ChooserTest, AllRanksChooseAlike) {
  for (GroupShape shape : {on_board(8, 4), on_sockets(5), on_hosts(3, 3)}) {
    const Chooser first(shape, knobs_with(), AlgorithmChoice(), {});
    GroupShape other_shape = shape;
    other_shape.rank = shape.nranks - 1;
    const Chooser other(other_shape, knobs_with(), AlgorithmChoice(), {});
    for (const Collective collective : collectives()) {
      for (size_t bytes = 1; bytes < size_t{1} << 30; bytes = bytes * 5 / 3 + 1) {
        const Call call = Call::of(collective, bytes, shape.nranks);
        const Decision a = choose(first, call), b = choose(other, call);
        EXPECT_EQ(a.way, b.way);
        EXPECT_EQ(a.route, b.route);
        EXPECT_EQ(a.reason, b.reason);
      }
    }
  }
}

TEST_F(ChooserTest, SmallGoesByOneshotAndLargeByWindowsOfTheBoard) {
  const Chooser chooser(on_board(2), knobs_with(), AlgorithmChoice(), {});
  const auto way = [&](Collective collective, size_t bytes) {
    return choose(chooser, Call::of(collective, bytes, 2)).route;
  };
  EXPECT_EQ(way(Collective::kAllReduce, 8), Route::kOneshot);
  EXPECT_EQ(way(Collective::kAllReduce, size_t{1} << 20), Route::kReduction);
  EXPECT_EQ(way(Collective::kAllGather, 8), Route::kOneshot);
  EXPECT_EQ(way(Collective::kAllGather, size_t{1} << 20), Route::kCopy);
  EXPECT_EQ(way(Collective::kReduceScatter, 8), Route::kOneshot);
  EXPECT_EQ(way(Collective::kReduceScatter, size_t{1} << 20), Route::kReduction);
  EXPECT_EQ(way(Collective::kAllGatherV, 8), Route::kSchedule);
}

TEST_F(ChooserTest, SumsKeepTheirOrderWhateverCarriesThemAndHoweverCrowded) {
  for (const Collective collective : collectives()) {
    if (!reduces(collective)) continue;
    for (const int nranks : {3, 4, 8}) {
      for (size_t bytes = 1; bytes < size_t{1} << 28; bytes = bytes * 3 / 2 + 1) {
        const Call call = Call::of(collective, bytes, nranks);
        const auto decide = [&](const GroupShape& shape) {
          return choose(Chooser(shape, knobs_with(), AlgorithmChoice(), {}), call);
        };
        EXPECT_EQ(decide(on_sockets(nranks)).way, decide(on_sockets(nranks, 4)).way);
        const Decision own = decide(on_board(nranks)), shared = decide(on_board(nranks, 4));
        // The ways of the board add alike; a call is on it however crowded it is, or never.
        EXPECT_EQ(own.route == Route::kSchedule, shared.route == Route::kSchedule);
        if (own.route == Route::kSchedule) {
          EXPECT_EQ(own.way, shared.way) << name_of(collective) << ' ' << bytes;
          EXPECT_EQ(own.way, decide(on_sockets(nranks)).way) << name_of(collective) << ' ' << bytes;
        }
      }
    }
  }
}

TEST_F(ChooserTest, KnobsAreStrongerThanTablesAndTablesThanTheModel) {
  const GroupShape shape = on_board(4);
  const Call call = Call::of(Collective::kAllReduce, 4000, 4);
  const TuningTable ring = table_of("allreduce, 0, *, *, *, *, ring, 3, *, 77\n");
  const TuningTable tree = table_of("allreduce, 0, *, *, *, *, tree, *, *, *\n");

  Decision decision = choose(Chooser(shape, knobs_with(), AlgorithmChoice(), {}), call);
  EXPECT_EQ(decision.route, Route::kOneshot);
  EXPECT_THAT(decision.reason, HasSubstr("the cost model: "));

  decision = choose(Chooser(shape, knobs_with(), AlgorithmChoice(), {ring, tree}), call);
  EXPECT_EQ(decision.way, Way::kRing);
  EXPECT_EQ(decision.lanes, 3);
  EXPECT_EQ(decision.reason, "FILE, line 2 (measured 77 us)");

  decision =
      choose(Chooser(shape, knobs_with("LL_THRESHOLD=4000"), AlgorithmChoice(), {ring}), call);
  EXPECT_EQ(decision.route, Route::kOneshot);
  EXPECT_EQ(decision.reason, "COMM_LL_THRESHOLD");

  decision = choose(Chooser(shape, knobs_with("LL_THRESHOLD=4000"), forced("hd"), {ring}), call);
  EXPECT_EQ(decision.way, Way::kHd);
  EXPECT_EQ(decision.reason, "COMM_ALGO");
}

TEST_F(ChooserTest, WhatATableAsksInVainIsLeftToTheNext) {
  const GroupShape shape = on_sockets(4);
  const Call call = Call::of(Collective::kAllGather, 4000, 4);
  const TuningTable windows = table_of("allgather, 0, *, *, *, *, windows, *, *, *\n");
  const TuningTable ring = table_of("allgather, 0, *, *, *, *, ring, *, *, *\n");
  EXPECT_EQ(choose(Chooser(shape, knobs_with(), AlgorithmChoice(), {windows, ring}), call).way,
            Way::kRing);
  const Decision decision =
      choose(Chooser(shape, knobs_with(), AlgorithmChoice(), {windows}), call);
  EXPECT_THAT(decision.reason, HasSubstr("cost model"));
}

TEST_F(ChooserTest, AThresholdThatIsSetForbidsOneshotAboveIt) {
  const TuningTable oneshot = table_of("allreduce, 0, *, *, *, *, oneshot, *, *, *\n");
  const Chooser chooser(on_board(2), knobs_with("LL_THRESHOLD=100"), AlgorithmChoice(), {oneshot});
  EXPECT_EQ(choose(chooser, Call::of(Collective::kAllReduce, 100, 2)).route, Route::kOneshot);
  EXPECT_EQ(choose(chooser, Call::of(Collective::kAllReduce, 101, 2)).route, Route::kReduction);
  EXPECT_EQ(choose(chooser, Call::of(Collective::kAllGather, 101, 2)).route, Route::kCopy);
}

TEST_F(ChooserTest, WhetherAKnobIsSetIsAgreedToo) {
  // Rank 0 sets the default: that is a choice of the user's.
  const auto set = knobs_with("LL_THRESHOLD=32K");
  EXPECT_TRUE(set->is_set(Knob::kLlThreshold));
  const auto unset = set->with_agreed("", nullptr);
  ASSERT_TRUE(unset.is_ok());
  EXPECT_FALSE((*unset)->is_set(Knob::kLlThreshold));
}

Operation sum_of(size_t count) {
  Operation operation;
  operation.collective = Collective::kAllReduce;
  operation.type = DataType::kFloat32;
  operation.count = count;
  return operation;
}

TEST_F(ChooserTest, PlansFollowTablesInLanesAndWindows) {
  GroupShape shape = on_board(2);
  shape.max_lanes = 4;
  const auto planner =
      Planner::create(shape, knobs_with(),
                      {table_of("allreduce, 0, 4000, *, *, *, ring, 3, *, *\n"
                                "allreduce, 4001, 8000, *, *, *, ring, 9, *, *\n"
                                "allreduce, 8001, *, *, *, *, twoshot, *, 64K, *\n")});
  ASSERT_TRUE(planner.is_ok()) << planner.status().message();
  const auto plan = [&](size_t count) {
    auto made = (*planner)->plan(sum_of(count));
    EXPECT_TRUE(made.is_ok()) << made.status().message();
    return *made;
  };
  EXPECT_EQ(plan(1000)->algorithm, "ring");
  EXPECT_EQ(plan(1000)->schedule.lanes.size(), 3U);
  EXPECT_EQ(plan(2000)->schedule.lanes.size(), 4U);  // as many as there may be
  EXPECT_EQ(plan(20000)->route, Route::kReduction);
  EXPECT_EQ(plan(20000)->window, size_t{64} << 10);
}

TEST_F(ChooserTest, ASingleRingThresholdThatIsSetIsStrongerThanATable) {
  GroupShape shape = on_sockets(2);
  const auto planner = Planner::create(shape, knobs_with("SINGLE_RING_THRESHOLD=4000"),
                                       {table_of("allreduce, 0, *, *, *, *, ring, 3, *, *\n")});
  ASSERT_TRUE(planner.is_ok());
  EXPECT_EQ((*(*planner)->plan(sum_of(1000)))->schedule.lanes.size(), 1U);
  EXPECT_EQ((*(*planner)->plan(sum_of(1001)))->schedule.lanes.size(), 3U);
}

}  // namespace
}  // namespace libcomm::test
