// Several set-up calls (splits, windows) on one communicator at once: in a group, in the
// background, and one that fails.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Rank;
using world::World;

constexpr int kRounds = world::kSanitized ? 3 : 20;

void count_is(Rank& rank, comm_t comm, int wanted, const std::string& what) {
  int count = -1;
  COMM_OK(rank, commCount(comm, &count));
  rank.expect(count == wanted, what + " has " + std::to_string(count) + " ranks");
}

void await_creation(Rank& rank, comm_t comm) {
  commResult_t state = commInProgress;
  while (state == commInProgress) {
    COMM_OK(rank, commGetAsyncError(comm, &state));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  rank.expect(state == commSuccess, std::string("creation: ") + commGetLastError(comm));
}

TEST(Setup, SplitsOfOneGroupGoInTheOrderOfTheCalls) {
  world::run({.nranks = 3}, [](Rank& rank) {
    for (int i = 0; i < kRounds; ++i) {
      comm_t whole = nullptr, single = nullptr, pair = rank.comm;
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSplit(rank.comm, 0, 0, &whole, nullptr));
      COMM_OK(rank, commSplit(rank.comm, rank.rank, 0, &single, nullptr));
      COMM_OK(rank,
              commSplit(rank.comm, rank.rank == 1 ? COMM_SPLIT_NOCOLOR : 0, 0, &pair, nullptr));
      COMM_OK(rank, commGroupEnd());
      count_is(rank, whole, 3, "the whole");
      count_is(rank, single, 1, "the single one");
      if (rank.rank != 1) count_is(rank, pair, 2, "the pair");
      rank.expect(rank.rank != 1 || pair == nullptr, "no colour gave a communicator");
      for (const comm_t comm : {whole, single, pair})
        if (comm != nullptr) COMM_OK(rank, commDestroy(comm));
    }
  });
}

TEST(Setup, SplitsInTheBackgroundGoInTheOrderOfTheCalls) {
  world::run({.nranks = 2}, [](Rank& rank) {
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = 0;
    for (int i = 0; i < kRounds; ++i) {
      comm_t whole = nullptr, single = nullptr;
      (void)commSplit(rank.comm, 0, 0, &whole, &config);
      (void)commSplit(rank.comm, rank.rank, 0, &single, &config);
      await_creation(rank, whole);
      await_creation(rank, single);
      count_is(rank, whole, 2, "the whole");
      count_is(rank, single, 1, "the single one");
      COMM_OK(rank, commDestroy(single));
      COMM_OK(rank, commDestroy(whole));
    }
  });
}

// Without an RDMA device there is nobody who would have to let go of the memory.
TEST(Setup, WhatWasRegisteredOverSocketsIsTakenBack) {
  world::run({.nranks = 2, .environment = {{"COMM_SHM_DISABLE", "1"}}}, [](Rank& rank) {
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 8192));
    void* handle = nullptr;
    COMM_OK(rank, commRegister(rank.comm, memory, 8192, &handle));
    COMM_OK(rank, commDeregister(rank.comm, handle));
    commWindow_t window = nullptr;
    COMM_OK(rank, commWindowRegister(rank.comm, memory, 8192, &window, COMM_WIN_DEFAULT));
    COMM_OK(rank, commWindowDeregister(rank.comm, window));
    COMM_OK(rank, commMemFree(memory));
  });
}

TEST(Setup, WindowsOfOneGroupAreRegisteredTogether) {
  world::run({.nranks = 2}, [](Rank& rank) {
    void *first = nullptr, *second = nullptr;
    COMM_OK(rank, commMemAlloc(&first, 8192));
    COMM_OK(rank, commMemAlloc(&second, 4096));
    for (int i = 0; i < 5 * kRounds; ++i) {
      commWindow_t windows[2] = {};
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank,
              commWindowRegister(rank.comm, first, 8192, &windows[0], COMM_WIN_COLL_SYMMETRIC));
      COMM_OK(rank,
              commWindowRegister(rank.comm, second, 4096, &windows[1], COMM_WIN_COLL_SYMMETRIC));
      COMM_OK(rank, commGroupEnd());
      for (const commWindow_t window : windows)
        COMM_OK(rank, commWindowDeregister(rank.comm, window));
    }
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    COMM_OK(rank, commMemFree(first));
    COMM_OK(rank, commMemFree(second));
  });
}

TEST(Setup, AWindowThatFailsInAGroupIsNotRegistered) {
  world::run({.nranks = 2}, [](Rank& rank) {
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 16384));
    commWindow_t good = nullptr, bad = nullptr;
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commWindowRegister(rank.comm, memory, 4096, &good, 0));
    COMM_OK(rank, commWindowRegister(rank.comm, memory, rank.rank == 0 ? 4096 : 8192, &bad, 0));
    const commWindow_t offered = bad;
    COMM_FAILS(rank, commGroupEnd(), commInvalidUsage, "4096", "8192");
    rank.expect(good != nullptr && bad == nullptr, "which window is left");
    COMM_FAILS(rank, commWindowDeregister(rank.comm, offered), commInvalidArgument,
               "not registered");
    COMM_OK(rank, commWindowDeregister(rank.comm, good));
    COMM_OK(rank, commMemFree(memory));
  });
}

TEST(Setup, AfterFinalizeIsRefused) {
  world::run({.nranks = 2}, [](Rank& rank) {
    COMM_OK(rank, commFinalize(rank.comm));
    comm_t child = nullptr;
    int excluded = 1 - rank.rank;
    COMM_FAILS(rank, commSplit(rank.comm, 0, 0, &child, nullptr), commInvalidUsage, "commFinalize");
    COMM_FAILS(rank, commSplit(rank.comm, COMM_SPLIT_NOCOLOR, 0, &child, nullptr), commInvalidUsage,
               "commFinalize");
    COMM_FAILS(rank, commShrink(rank.comm, &excluded, 1, &child, nullptr, COMM_SHRINK_DEFAULT),
               commInvalidUsage, "commFinalize");
    rank.expect(child == nullptr, "a refused call handed something out");
  });
}

// Without a wait: the other calls of the group are not carried out.
TEST(Setup, AWrongCallInAGroupIsToldAtItsEnd) {
  commUniqueId id{};
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  for (const int blocking : {1, 0}) {
    const world::ScopedEnvironment environment(
        world::Environment{{"COMM_BOOTSTRAP_TIMEOUT", "20"}});
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = blocking;
    comm_t good = nullptr, bad = nullptr;
    ASSERT_EQ(commGroupStart(), commSuccess);
    EXPECT_EQ(commInitRankConfig(&good, 2, id, 0, &config), commSuccess);
    EXPECT_EQ(commInitRankConfig(&bad, 2, id, 2, &config), commInvalidArgument);
    EXPECT_EQ(commGroupEnd(), commInvalidArgument);
    EXPECT_NE(std::string(commGetLastError(nullptr)).find("rank 2"), std::string::npos);
    EXPECT_EQ(good, nullptr);
    EXPECT_EQ(bad, nullptr);
  }
  world::run({.nranks = 2}, [](Rank& rank) {
    for (int i = 0; i < 3; ++i) {
      comm_t good = nullptr, bad = nullptr;
      commWindow_t window = nullptr;
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 4096));
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSplit(rank.comm, 0, 0, &good, nullptr));
      COMM_OK(rank, commWindowRegister(rank.comm, memory, 4096, &window, COMM_WIN_DEFAULT));
      COMM_FAILS(rank, commSplit(rank.comm, -7, 0, &bad, nullptr), commInvalidArgument, "color -7");
      COMM_FAILS(rank, commGroupEnd(), commInvalidArgument, "color -7");
      rank.expect(good == nullptr && bad == nullptr && window == nullptr, "a handle was left");
      COMM_OK(rank, commSplit(rank.comm, 0, 0, &good, nullptr));
      COMM_OK(rank, commDestroy(good));
      COMM_OK(rank, commMemFree(memory));
    }
  });
}

// The parent's operations are the parent's.
TEST(Setup, AGroupThatIsOpenDuringAForkIsNotTheChilds) {
  comm_t comms[2] = {};
  ASSERT_EQ(commInitAll(comms, 2, nullptr), commSuccess) << commGetLastError(nullptr);
  int from[2] = {1, 2}, to[2] = {};
  ASSERT_EQ(commGroupStart(), commSuccess);
  for (int i = 0; i < 2; ++i)
    ASSERT_EQ(commAllReduce(&from[i], &to[i], 1, commInt, commSum, comms[i], nullptr), commSuccess);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    const bool refused = commGroupEnd() == commInvalidUsage &&
                         std::string(commGetLastError(nullptr)).find("fork") != std::string::npos;
    const bool usable = commGroupStart() == commSuccess && commGroupEnd() == commSuccess;
    _exit(refused && usable && to[0] == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
  EXPECT_EQ(to[0], 3);
  EXPECT_EQ(to[1], 3);
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

// How many commMemAlloc segments this process has mapped, its own and its peers'.
int mapped_segments() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);)
    count += line.find("comm-segment") != std::string::npos ? 1 : 0;
  return count;
}

TEST(Memory, ThatIsFreedIsGivenBackByThePeersToo) {
  world::run({.nranks = 2, .kind = world::Kind::kProcesses}, [](Rank& rank) {
    const size_t count = 1 << 20;
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, count * sizeof(int)));
    COMM_OK(rank, commAllReduce(memory, memory, count, commInt, commSum, rank.comm, nullptr));
    rank.expect(mapped_segments() == 2, "the peer's memory was not used in place");
    COMM_OK(rank, commMemFree(memory));
    // The first tells the peer, by the second it has heard.
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    rank.expect(mapped_segments() == 0, "freed memory is still mapped");
  });
}

}  // namespace
