// Several set-up calls (splits, windows) on one communicator at once: in a group, in the
// background, and one that fails.
#include <gtest/gtest.h>

#include <chrono>
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

}  // namespace
