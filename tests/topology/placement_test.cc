#include <sched.h>

#include <set>
#include <thread>

#include "src/topology/affinity.h"
#include "src/topology/cpu_list.h"
#include "tests/topology/machines.h"

namespace libcomm {
namespace {

std::vector<int> placed(const Topology& t, const std::string& affinity, int ranks) {
  std::vector<int> cores;
  for (int rank = 0; rank < ranks; ++rank) {
    auto core = core_for_rank(t, affinity, rank, ranks);
    EXPECT_TRUE(core) << core.status().to_string();
    cores.push_back(core ? *core : -2);
  }
  return cores;
}

std::vector<int> kernel_affinity() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
  return cpus;
}

void restrict_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

TEST(Placement, LeavesRanksUnboundUnlessAsked) {
  EXPECT_EQ(placed(two_sockets_four_nodes(), "", 2), (std::vector<int>{-1, -1}));
}

TEST(Placement, AutoGivesTwoRanksAPackageEachAndFourANodeEach) {
  const Topology t = two_sockets_four_nodes();
  EXPECT_EQ(placed(t, "auto", 1), std::vector<int>{0});
  EXPECT_EQ(placed(t, "auto", 2), (std::vector<int>{0, 8}));
  EXPECT_EQ(placed(t, "auto", 4), (std::vector<int>{0, 4, 8, 12}));
}

TEST(Placement, AutoGivesEveryRankItsOwnCoreInBlocksWhileTheyLast) {
  const Topology t = two_sockets_four_nodes();
  for (int ranks = 1; ranks <= 16; ++ranks) {
    const std::vector<int> cores = placed(t, "auto", ranks);
    EXPECT_EQ(std::set<int>(cores.begin(), cores.end()).size(), cores.size()) << ranks;
    EXPECT_TRUE(std::is_sorted(cores.begin(), cores.end())) << ranks;
  }
}

TEST(Placement, AutoSharesCoresEvenlyWhenRanksAreMore) {
  const Topology t = two_sockets_four_nodes();
  std::vector<int> ranks_on(16);
  for (int core : placed(t, "auto", 40)) ++ranks_on.at(static_cast<size_t>(core));
  for (int ranks : ranks_on) {
    EXPECT_GE(ranks, 2);
    EXPECT_LE(ranks, 3);
  }
}

TEST(Placement, AutoFillsUnevenNodesInProportion) {
  const Topology t = from_file("uneven.xml");  // nodes of 3, 1 and 2 cores
  EXPECT_EQ(placed(t, "auto", 3), (std::vector<int>{0, 2, 4}));
  EXPECT_EQ(placed(t, "auto", 6), (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(Placement, AListIsTakenInTurnAndWrapsAround) {
  const Topology t = from_file("uneven.xml");
  // CPU numbers: 6 is the fourth core, 1 the fifth, 0 the first.
  EXPECT_EQ(placed(t, "6,0-1", 5), (std::vector<int>{3, 0, 4, 3, 0}));
}

TEST(Placement, AnyHardwareThreadStandsForItsCore) {
  EXPECT_EQ(placed(two_sockets_four_nodes(), "0,1,31", 3), (std::vector<int>{0, 0, 15}));
}

TEST(Placement, RefusesCoresThatTheProcessMayNotUseByNumber) {
  const Topology t = synthetic("pack:1 core:2 pu:1");
  auto one = core_for_rank(t, "0,9", 0, 2);
  ASSERT_FALSE(one);
  EXPECT_EQ(one.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(one.status().message(),
            "COMM_CPU_AFFINITY=0,9: core 9 is not among the cores this process may use: 0-1");
  EXPECT_EQ(core_for_rank(t, "0-9", 0, 2).status().message(),
            "COMM_CPU_AFFINITY=0-9: cores 2-9 are not among the cores this process may use: 0-1");
}

TEST(Placement, RefusesTextThatIsNoListAndNamesTheKnob) {
  const Topology t = two_sockets_four_nodes();
  for (const char* affinity : {"fast", "AUTO", "0-", "1,,2", " "}) {
    auto core = core_for_rank(t, affinity, 0, 1);
    ASSERT_FALSE(core) << affinity;
    EXPECT_EQ(core.status().code(), Code::kInvalidArgument);
    EXPECT_EQ(core.status().message().find(fmt::format("COMM_CPU_AFFINITY={}", affinity)), 0u)
        << core.status().message();
  }
}

TEST(Placement, RefusesALocalRankOutsideTheHost) {
  const Topology t = two_sockets_four_nodes();
  for (auto [rank, ranks] : {std::pair(-1, 2), std::pair(2, 2), std::pair(0, 0)}) {
    EXPECT_EQ(core_for_rank(t, "auto", rank, ranks).status().code(), Code::kInvalidArgument);
    EXPECT_EQ(core_for_rank(t, "0", rank, ranks).status().code(), Code::kInvalidArgument);
  }
}

TEST(Binding, MovesTheThreadToTheCoresHardwareThreads) {
  std::thread([] {
    const auto t = detect();
    ASSERT_TRUE(t);
    const int core = t->usable_cores().back();
    const std::vector<int> before = kernel_affinity();
    ASSERT_TRUE(bind_thread(*t, core));
    const std::vector<int> after = kernel_affinity();
    EXPECT_LE(after.size(), before.size());
    EXPECT_EQ(after.front(), t->devices()[static_cast<size_t>(core)].os_index);
  }).join();
}

TEST(Binding, OfOurOwnDoesNotNarrowWhatLaterCommunicatorsMayUse) {
  std::thread([] {
    const auto t = detect();
    ASSERT_TRUE(t);
    if (t->usable_cores().size() < 2) GTEST_SKIP() << "this process may use one core only";
    ASSERT_TRUE(bind_thread(*t, t->usable_cores()[0]));
    const auto again = detect();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->usable_cores(), t->usable_cores());
    EXPECT_TRUE(bind_thread(*again, again->usable_cores()[1]));
  }).join();
}

TEST(Binding, RestrictionsFromOutsideCountAlsoAfterOneOfOurs) {
  std::thread([] {
    const auto t = detect();
    ASSERT_TRUE(t);
    if (t->usable_cores().size() < 2) GTEST_SKIP() << "this process may use one core only";
    const int first = t->usable_cores()[0], second = t->usable_cores()[1];
    ASSERT_TRUE(bind_thread(*t, first));
    restrict_to(t->devices()[static_cast<size_t>(second)].os_index);
    const auto narrowed = detect();
    ASSERT_TRUE(narrowed);
    EXPECT_EQ(narrowed->usable_cores(), std::vector<int>{second});
    EXPECT_EQ(narrowed->cores(), t->cores()) << "ids must stay those of the other processes";
    EXPECT_EQ(bind_thread(*narrowed, first).code(), Code::kInvalidArgument);
    const int refused = t->devices()[static_cast<size_t>(first)].os_index;
    EXPECT_EQ(core_for_rank(*narrowed, std::to_string(refused), 0, 1).status().code(),
              Code::kInvalidArgument);
  }).join();
}

TEST(Binding, ToAMachineThatIsNotOursSaysWhy) {
  const Topology t = two_sockets_four_nodes();
  const Status status = bind_thread(t, 0);
  EXPECT_EQ(status.code(), Code::kInvalidUsage);
  EXPECT_NE(status.message().find("HWLOC_SYNTHETIC="), std::string::npos) << status.message();
}

TEST(Binding, RefusesWhatIsNoCore) {
  const Topology t = from_file("switches.xml");
  for (int device : {-1, t.find_device(DeviceKind::kNetwork, "eth0"), 1000})
    EXPECT_EQ(bind_thread(t, device).code(), Code::kInvalidArgument) << device;
}

TEST(Binding, FailsWithTheKernelsReasonForCpusThatDoNotExist) {
  const Status status = bind_calling_thread(std::vector<int>{kMaxCpuNumber});
  EXPECT_EQ(status.code(), Code::kSystem);
  EXPECT_NE(status.message().find("65535"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace libcomm
