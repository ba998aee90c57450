// Calls of other threads while a communicator is being ended: nothing is used after it is freed,
// nothing is freed twice, and whoever waits is let go.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Rank;
using world::World;

using Floats = std::vector<float>;

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

TEST(Abort, BesideAThreadInALoopOfCallsLetsItGo) {
  const int rounds = world::kSanitized ? 200 : 500;
  comm_t parent = nullptr;
  ASSERT_EQ(commInitAll(&parent, 1, nullptr), commSuccess) << commGetLastError(nullptr);
  for (int i = 0; i < rounds; ++i) {
    comm_t comm = nullptr;
    ASSERT_EQ(commSplit(parent, 0, 0, &comm, nullptr), commSuccess) << commGetLastError(nullptr);
    std::atomic<bool> in_the_loop{false};
    commResult_t last = commSuccess;
    std::thread user([&] {
      int count = 0;
      commResult_t state = commSuccess;
      while (last == commSuccess) {
        last = commCount(comm, &count);
        if (last == commSuccess) last = commGetAsyncError(comm, &state);
        in_the_loop = true;
      }
    });
    while (!in_the_loop) std::this_thread::yield();
    EXPECT_EQ(commAbort(comm), commSuccess);
    user.join();
    EXPECT_EQ(last, commInvalidArgument);
  }
  EXPECT_EQ(commDestroy(parent), commSuccess);
}

TEST(Abort, LetsADestroyOfAnotherThreadGo) {
  world::run({.nranks = 2}, [](Rank& rank) {
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    Floats a(10, 1.0f);
    const comm_t comm = std::exchange(rank.comm, nullptr);
    rank.meet();
    if (rank.rank == 1) {  // joins nothing
      commResult_t state = commSuccess;
      while (state == commSuccess) {
        COMM_OK(rank, commGetAsyncError(comm, &state));
        nap(1);
      }
      COMM_OK(rank, commDestroy(comm));
    } else {
      COMM_OK(rank, commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, comm, stream));
      commResult_t aborted = commSystemError;
      std::thread watchdog([&] {
        // A communicator that is being ended takes no more calls.
        for (int count = 0; commCount(comm, &count) == commSuccess;) nap(1);
        nap(20);
        aborted = commAbort(comm);
      });
      COMM_OK(rank, commDestroy(comm));  // waits for what is queued
      watchdog.join();
      rank.expect(aborted == commSuccess, "abort: " + std::to_string(aborted));
    }
    (void)commHostStreamSynchronize(stream);
    (void)commHostStreamDestroy(stream);
  });
}

TEST(Abort, FromTwoThreadsFreesOnce) {
  const int rounds = world::kSanitized ? 100 : 200;
  for (int i = 0; i < rounds; ++i) {
    comm_t comm = nullptr;
    ASSERT_EQ(commInitAll(&comm, 1, nullptr), commSuccess);
    std::atomic<int> ready{0};
    std::atomic<int> good{0};
    const auto call = [&](commResult_t (*end)(comm_t)) {
      ++ready;
      while (ready < 3) std::this_thread::yield();
      const commResult_t result = end(comm);
      EXPECT_TRUE(result == commSuccess || result == commInvalidArgument) << result;
      if (result == commSuccess) ++good;
    };
    std::thread first(call, commAbort), second(call, commAbort), third(call, commDestroy);
    first.join();
    second.join();
    third.join();
    EXPECT_GE(good.load(), 1);
    // Had it been freed twice, these would be the same communicator.
    comm_t pair[2] = {};
    ASSERT_EQ(commInitAll(&pair[0], 1, nullptr), commSuccess);
    ASSERT_EQ(commInitAll(&pair[1], 1, nullptr), commSuccess);
    EXPECT_NE(pair[0], pair[1]);
    EXPECT_EQ(commDestroy(pair[0]), commSuccess);
    EXPECT_EQ(commDestroy(pair[1]), commSuccess);
  }
}

TEST(Abort, EndsTheCreationOfASplitThatTheOthersNeverJoin) {
  std::atomic<bool> over{false};
  world::run({.nranks = 2, .environment = {{"COMM_BOOTSTRAP_TIMEOUT", "3600"}}}, [&](Rank& rank) {
    if (rank.rank == 0) {
      commConfig_t config = COMM_CONFIG_INITIALIZER;
      config.blocking = 0;
      comm_t child = nullptr;
      const commResult_t begun = commSplit(rank.comm, 0, 0, &child, &config);
      rank.expect(begun == commInProgress, "split: " + std::to_string(begun));
      nap(20);
      COMM_OK(rank, commAbort(child));
      // Nor does a shrink that nobody else takes part in keep its maker.
      int excluded[] = {1};
      COMM_OK(rank, commShrink(rank.comm, excluded, 1, &child, nullptr, COMM_SHRINK_DEFAULT));
      COMM_OK(rank, commDestroy(child));
      over = true;
    }
    while (!over) nap(1);
  });
}

TEST(Abort, OfTheParentEndsTheCreationOfItsChild) {
  std::atomic<bool> over{false};
  world::run({.nranks = 3, .environment = {{"COMM_BOOTSTRAP_TIMEOUT", "3600"}}}, [&](Rank& rank) {
    rank.meet();
    if (rank.rank == 0) {  // rank 1 never shrinks
      commConfig_t config = COMM_CONFIG_INITIALIZER;
      config.blocking = 0;
      comm_t child = nullptr;
      int excluded[] = {2};
      const commResult_t begun =
          commShrink(rank.comm, excluded, 1, &child, &config, COMM_SHRINK_DEFAULT);
      rank.expect(begun == commInProgress, "shrink: " + std::to_string(begun));
      nap(20);
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      COMM_OK(rank, commDestroy(child));  // waits for the end of its creation
      over = true;
    }
    while (!over) nap(1);
  });
}

TEST(Abort, DoesNotWaitForAnotherCommunicatorOfTheSameStream) {
  std::atomic<bool> over{false};
  world::run({.nranks = 2}, [&](Rank& rank) {
    comm_t other = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &other, nullptr));
    rank.meet();
    if (rank.rank == 0) {  // rank 1 joins neither operation
      cudaStream_t stream = nullptr;
      COMM_OK(rank, commHostStreamCreate(&stream));
      Floats a(10, 1.0f);
      for (const comm_t comm : {rank.comm, other})
        COMM_OK(rank,
                commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, comm, stream));
      nap(20);
      COMM_OK(rank, commAbort(other));
      rank.expect(commHostStreamQuery(stream) == commInProgress, "the first one is over too");
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      rank.expect(commHostStreamSynchronize(stream) == commRemoteError, "no failure");
      (void)commHostStreamDestroy(stream);
      over = true;
      return;
    }
    while (!over) nap(1);
    COMM_OK(rank, commAbort(other));
  });
}

// All ranks of a group in one thread, on one stream.
TEST(Streams, CarryTheWorkOfAGroupTogether) {
  comm_t comms[3] = {};
  ASSERT_EQ(commInitAll(comms, 3, nullptr), commSuccess) << commGetLastError(nullptr);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  Floats sums(3);
  for (int i = 0; i < 10; ++i) {
    Floats values = {1.0f, 2.0f, 3.0f};
    ASSERT_EQ(commGroupStart(), commSuccess);
    for (size_t r = 0; r < 3; ++r)
      ASSERT_EQ(commAllReduce(&values[r], &sums[r], 1, commFloat, commSum, comms[r], stream),
                commSuccess);
    ASSERT_EQ(commGroupEnd(), commSuccess);
    ASSERT_EQ(commHostStreamSynchronize(stream), commSuccess);
    EXPECT_EQ(sums, Floats(3, 6.0f));
  }
  EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

// Two threads, each with a rank of two communicators, name two streams in opposite order.
TEST(Streams, ThatSeveralThreadsNameInDifferentOrderDoNotBlockEachOther) {
  cudaStream_t streams[2] = {};
  for (cudaStream_t& stream : streams) ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      comm_t comm = nullptr;
      ASSERT_EQ(commInitAll(&comm, 1, nullptr), commSuccess);
      Floats a(10, 1.0f);
      for (int i = 0; i < 2000; ++i) {
        ASSERT_EQ(commGroupStart(), commSuccess);
        for (const int which : {thread, 1 - thread})
          ASSERT_EQ(
              commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, comm, streams[which]),
              commSuccess);
        ASSERT_EQ(commGroupEnd(), commSuccess);
      }
      ASSERT_EQ(commDestroy(comm), commSuccess);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const cudaStream_t stream : streams) EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
}

TEST(Finalize, OfANonBlockingCommunicatorDoesNotWait) {
  std::atomic<bool> finalized{false};
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  world::run({.nranks = 2, .connected = false}, [&](Rank& rank) {
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = "lazy";
    comm_t comm = nullptr;
    (void)commInitRankConfig(&comm, rank.nranks, id, rank.rank, &config);
    commResult_t state = commInProgress;
    while (state == commInProgress) COMM_OK(rank, commGetAsyncError(comm, &state));
    Floats a(10, 1.0f);
    // Rank 1 makes its call only when rank 0 has finalized.
    while (rank.rank == 1 && !finalized) nap(1);
    (void)commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, comm, nullptr);
    const commResult_t result = commFinalize(comm);
    if (rank.rank == 0) rank.expect(result == commInProgress, "finalize waited, or failed");
    finalized = true;
    for (state = commInProgress; state == commInProgress;)
      COMM_OK(rank, commGetAsyncError(comm, &state));
    rank.expect(state == commSuccess && a[0] == 2, "what was queued is not done");
    rank.expect_error(commBarrier(comm, nullptr), commInvalidUsage, {"communicator lazy: "},
                      "barrier", comm);
    COMM_OK(rank, commDestroy(comm));
  });
}

}  // namespace
