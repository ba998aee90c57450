// The life of communicators: split, shrink, revoke, abort, finalize, launchers, forks; what other
// ranks notice of it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Kind;
using world::Rank;
using world::World;

using Floats = std::vector<float>;

void sum_is_right(Rank& rank, comm_t comm, const std::string& where) {
  int n = 0;
  COMM_OK(rank, commCount(comm, &n));
  Floats values(3000, 1.0f);
  COMM_OK(rank, commAllReduce(values.data(), values.data(), values.size(), commFloat, commSum, comm,
                              nullptr));
  rank.expect(std::all_of(values.begin(), values.end(),
                          [&](float v) { return v == static_cast<float>(n); }),
              "wrong sum in " + where);
}

void place_is(Rank& rank, comm_t comm, int wanted_rank, int wanted_count,
              const std::string& where) {
  int value = -1;
  COMM_OK(rank, commUserRank(comm, &value));
  rank.expect(value == wanted_rank, where + ": rank " + std::to_string(value));
  COMM_OK(rank, commCount(comm, &value));
  rank.expect(value == wanted_count, where + ": count " + std::to_string(value));
}

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

std::vector<World> worlds(int nranks) {
  return {World{.nranks = nranks},
          World{.nranks = nranks, .environment = {{"COMM_SHM_DISABLE", "1"}}},
          World{.nranks = nranks, .kind = Kind::kProcesses},
          World{.nranks = nranks, .kind = Kind::kProcesses, .hosts = {nranks - 1, 1}}};
}

TEST(Split, OrdersByKeyThenByOldRankAndLeavesSomeOut) {
  for (const World& world : worlds(5)) {
    world::run(world, [](Rank& rank) {
      // Colour 0: ranks 0 2 4 backwards; colour 3: rank 1; rank 3 stays out.
      comm_t part = rank.comm;
      const int color = rank.rank % 2 == 0 ? 0 : rank.rank == 1 ? 3 : COMM_SPLIT_NOCOLOR;
      COMM_OK(rank, commSplit(rank.comm, color, -rank.rank, &part, nullptr));
      if (rank.rank == 3) {
        rank.expect(part == nullptr, "NOCOLOR gave a communicator");
      } else if (rank.rank == 1) {
        place_is(rank, part, 0, 1, "a part of one");
      } else {
        place_is(rank, part, 2 - rank.rank / 2, 3, "the part of three");
        sum_is_right(rank, part, "the part");
        // Equal keys keep the old order; a part splits again.
        comm_t half = nullptr;
        COMM_OK(rank, commSplit(part, rank.rank == 4 ? 7 : 8, 5, &half, nullptr));
        place_is(rank, half, rank.rank == 0 ? 1 : 0, rank.rank == 4 ? 1 : 2, "the part's part");
        sum_is_right(rank, half, "the part's part");
        // The child outlives its parent.
        COMM_OK(rank, commDestroy(part));
        part = nullptr;
        sum_is_right(rank, half, "an orphan");
        COMM_OK(rank, commDestroy(half));
      }
      sum_is_right(rank, rank.comm, "the whole");
      if (part != nullptr) COMM_OK(rank, commDestroy(part));
    });
  }
}

TEST(Shrink, LeavesOutTheListedRanks) {
  for (const World& world : worlds(4)) {
    world::run(world, [](Rank& rank) {
      int list[] = {2};
      comm_t rest = nullptr;
      if (rank.rank == 2) {
        int twice[] = {1, 1};
        COMM_FAILS(rank, commShrink(rank.comm, list, 1, &rest, nullptr, 0), commInvalidUsage,
                   "rank 2");
        COMM_FAILS(rank, commShrink(rank.comm, twice, 2, &rest, nullptr, 0), commInvalidArgument,
                   "twice");
        COMM_FAILS(rank, commShrink(rank.comm, nullptr, 1, &rest, nullptr, 0), commInvalidArgument,
                   "excludeRanksList");
        COMM_FAILS(rank, commShrink(rank.comm, list, 1, &rest, nullptr, 9), commInvalidArgument,
                   "shrinkFlags 9");
        COMM_FAILS(rank, commShrink(rank.comm, list, 4, &rest, nullptr, 0), commInvalidArgument,
                   "excludeRanksCount 4");
        int nobody[] = {6};
        COMM_FAILS(rank, commShrink(rank.comm, nobody, 1, &rest, nullptr, 0), commInvalidArgument,
                   "excluded rank 6");
      } else {
        COMM_OK(rank, commShrink(rank.comm, list, 1, &rest, nullptr, COMM_SHRINK_DEFAULT));
        place_is(rank, rest, rank.rank == 3 ? 2 : rank.rank, 3, "the rest");
        sum_is_right(rank, rest, "the rest");
        COMM_OK(rank, commDestroy(rest));
      }
      sum_is_right(rank, rank.comm, "the whole");  // the parent is as it was
    });
  }
}

TEST(Revoke, EndsWhatRunsEverywhereAndThenShrinkWorks) {
  for (const World& world : worlds(3)) {
    world::run(world, [](Rank& rank) {
      Floats values(1000, 1.0f);
      rank.meet();
      if (rank.rank == 0) {
        nap(50);
        COMM_OK(rank, commRevoke(rank.comm, COMM_REVOKE_DEFAULT));
        COMM_OK(rank, commRevoke(rank.comm, COMM_REVOKE_DEFAULT));  // once more is no harm
      } else {
        // Rank 0 never joins this.
        COMM_FAILS(rank,
                   commAllReduce(values.data(), values.data(), values.size(), commFloat, commSum,
                                 rank.comm, nullptr),
                   commInvalidUsage, "revoked by rank 0");
      }
      COMM_FAILS(rank, commBarrier(rank.comm, nullptr), commInvalidUsage, "revoked by rank 0");
      int value = -1;
      COMM_OK(rank, commUserRank(rank.comm, &value));
      int list[] = {1};
      if (rank.rank != 1) {
        comm_t rest = nullptr;
        COMM_OK(rank, commShrink(rank.comm, list, 1, &rest, nullptr, COMM_SHRINK_DEFAULT));
        place_is(rank, rest, rank.rank / 2, 2, "the rest");
        sum_is_right(rank, rest, "the rest");
        COMM_OK(rank, commDestroy(rest));
      }
    });
  }
}

// Rank 0 never registers its window.
TEST(Revoke, EndsTheRegistrationOfAWindow) {
  for (const World& world : worlds(3)) {
    world::run(world, [](Rank& rank) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 1 << 16));
      rank.meet();
      if (rank.rank == 0) {
        nap(50);
        COMM_OK(rank, commRevoke(rank.comm, COMM_REVOKE_DEFAULT));
      } else {
        commWindow_t window = nullptr;
        COMM_FAILS(rank,
                   commWindowRegister(rank.comm, memory, 1 << 16, &window, COMM_WIN_COLL_SYMMETRIC),
                   commInvalidUsage, "revoked by rank 0");
      }
      int list[] = {1};
      if (rank.rank != 1) {
        comm_t rest = nullptr;
        COMM_OK(rank, commShrink(rank.comm, list, 1, &rest, nullptr, COMM_SHRINK_DEFAULT));
        sum_is_right(rank, rest, "the rest");
        COMM_OK(rank, commDestroy(rest));
      }
      for (int i = 0; i < 2; ++i) {
        comm_t turned = nullptr;
        COMM_OK(rank, commSplit(rank.comm, 0, -rank.rank, &turned, nullptr));
        place_is(rank, turned, rank.nranks - 1 - rank.rank, rank.nranks, "those who split");
        sum_is_right(rank, turned, "those who split");
        COMM_OK(rank, commDestroy(turned));
      }
      COMM_OK(rank, commMemFree(memory));
    });
  }
}

TEST(Shrink, WithAbortFirstEndsWhatRuns) {
  world::run({.nranks = 3}, [](Rank& rank) {
    int list[] = {2};
    Floats values(1000, 1.0f);
    rank.meet();
    if (rank.rank == 2) {
      COMM_FAILS(rank,
                 commAllReduce(values.data(), values.data(), values.size(), commFloat, commSum,
                               rank.comm, nullptr),
                 commInvalidUsage, "revoked by rank");
      return;
    }
    nap(20);
    comm_t rest = nullptr;
    COMM_OK(rank, commShrink(rank.comm, list, 1, &rest, nullptr, COMM_SHRINK_ABORT));
    sum_is_right(rank, rest, "the rest");
    COMM_OK(rank, commDestroy(rest));
  });
}

TEST(Abort, UnblocksEveryRankAndNamesTheAborter) {
  for (const size_t count : {size_t{4}, size_t{400000}}) {
    for (const World& world : worlds(4)) {
      world::run(world, [&](Rank& rank) {
        Floats values(count, 1.0f);
        sum_is_right(rank, rank.comm, "the whole");
        rank.meet();
        if (rank.rank == 1) {
          nap(50);
          COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
          return;
        }
        COMM_FAILS(rank,
                   commAllReduce(values.data(), values.data(), count, commFloat, commSum, rank.comm,
                                 nullptr),
                   commRemoteError, "rank 1", "commAbort");
        // The reason stays.
        COMM_FAILS(rank, commBarrier(rank.comm, nullptr), commRemoteError, "rank 1");
        commResult_t state = commSuccess;
        COMM_OK(rank, commGetAsyncError(rank.comm, &state));
        rank.expect(state == commRemoteError, "state " + std::to_string(state));
        COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      });
    }
  }
}

TEST(Abort, UnblocksReceiversAndSenders) {
  for (const World& world : worlds(3)) {
    world::run(world, [](Rank& rank) {
      Floats values(6 << 20, 1.0f);
      rank.meet();
      if (rank.rank == 2) {
        nap(50);
        COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      } else if (rank.rank == 0) {  // more than the channel and the kernel's buffers take
        COMM_FAILS(rank, commSend(values.data(), values.size(), commFloat, 2, rank.comm, nullptr),
                   commRemoteError, "rank 2");
      } else {
        COMM_FAILS(rank, commRecv(values.data(), values.size(), commFloat, 2, rank.comm, nullptr),
                   commRemoteError, "rank 2");
      }
    });
  }
}

TEST(Abort, FromAnotherThreadEndsThisRanksOwnCall) {
  std::atomic<bool> called{false};
  world::run({.nranks = 2}, [&](Rank& rank) {
    Floats out(1000, 1.0f), in(1000);
    const comm_t comm = rank.comm;
    if (rank.rank == 0) {
      std::thread aborter([&] {
        while (!called) nap(1);
        (void)commAbort(comm);
      });
      // Rank 1 receives, and so knows that this call has begun, but never sends.
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSend(out.data(), out.size(), commFloat, 1, comm, nullptr));
      COMM_OK(rank, commRecv(in.data(), in.size(), commFloat, 1, comm, nullptr));
      COMM_FAILS(rank, commGroupEnd(), commRemoteError, "rank 0", "commAbort");
      aborter.join();
      rank.comm = nullptr;
    } else {
      COMM_OK(rank, commRecv(in.data(), in.size(), commFloat, 0, comm, nullptr));
      called = true;
      commResult_t state = commSuccess;
      for (int i = 0; i < 60000 && state == commSuccess; ++i) {
        COMM_OK(rank, commGetAsyncError(comm, &state));
        nap(1);
      }
      rank.expect(state == commRemoteError, "rank 1 never heard of it");
    }
  });
}

TEST(Destroy, InsideAGroupComesAfterItsWork) {
  world::run({.nranks = 2}, [](Rank& rank) {
    comm_t one = nullptr, two = nullptr, aborted = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &one, nullptr));
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &two, nullptr));
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &aborted, nullptr));
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    Floats a(1000, 1.0f), b(1000, 1.0f);
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commDestroy(aborted));
    COMM_OK(rank, commAbort(aborted));  // which is all that happens to it
    COMM_OK(rank, commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, one, nullptr));
    COMM_OK(rank, commDestroy(one));
    COMM_OK(rank, commDestroy(two));
    COMM_OK(rank, commAllReduce(b.data(), b.data(), b.size(), commFloat, commSum, two, nullptr));
    COMM_OK(rank, commGroupEnd());
    int count = 0;
    COMM_OK(rank, commCount(one, &count));
    rank.expect(count == 2 && a[0] == 1, "the inner end does nothing");
    COMM_OK(rank, commGroupEnd());
    rank.expect(a[0] == 2 && b[999] == 2, "the group's work was not done");
    COMM_FAILS(rank, commCount(one, &count), commInvalidArgument, "destroyed");
    COMM_FAILS(rank, commCount(two, &count), commInvalidArgument, "destroyed");

    // A group that fails frees what was destroyed in it, and its end tells the first failure.
    comm_t three = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &three, nullptr));
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commDestroy(three));
    COMM_OK(rank, commDestroy(one));
    COMM_FAILS(rank, commBcast(a.data(), a.size(), commFloat, 7, three, nullptr),
               commInvalidArgument, "root 7");
    COMM_FAILS(rank, commGroupEnd(), commInvalidArgument, "root 7");
    COMM_FAILS(rank, commCount(three, &count), commInvalidArgument, "destroyed");

    // One that is destroyed twice is a failure of the group's end; one that is simulated, too.
    comm_t four = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &four, nullptr));
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commDestroy(four));
    COMM_OK(rank, commDestroy(four));
    COMM_FAILS(rank, commGroupSimulateEnd(nullptr), commInvalidArgument, "destroyed");
  });
}

TEST(Abort, InsideAGroupForgetsTheCommunicatorsWork) {
  std::barrier both_have_called(2);
  world::run({.nranks = 2}, [&](Rank& rank) {
    comm_t other = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, 0, &other, nullptr));
    Floats a(1000, 1.0f), b(1000, 1.0f);
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, other, nullptr));
    COMM_OK(rank,
            commAllReduce(b.data(), b.data(), b.size(), commFloat, commSum, rank.comm, nullptr));
    both_have_called.arrive_and_wait();
    COMM_OK(rank, commAbort(other));
    COMM_OK(rank, commGroupEnd());
    rank.expect(b[0] == 2, "the other communicator's work was lost");
    rank.expect(a[0] == 1, "an aborted communicator's work was done");
  });
}

TEST(Abort, EndsQueuedWorkOfAStream) {
  world::run({.nranks = 2}, [](Rank& rank) {
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    Floats a(1000, 1.0f);
    if (rank.rank == 0) {  // rank 1 joins none of them
      for (int i = 0; i < 3; ++i)
        COMM_OK(rank,
                commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, rank.comm, stream));
    }
    rank.meet();  // rank 1's abort, too, would end what is not queued yet
    nap(20);
    COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
    const commResult_t result = commHostStreamSynchronize(stream);
    rank.expect(result == (rank.rank == 0 ? commRemoteError : commSuccess),
                "stream: " + std::to_string(result) + " " + commGetLastError(nullptr));
    (void)commHostStreamDestroy(stream);
  });
}

TEST(Death, OfAProcessIsNoticedByTheOthers) {
  World world{.nranks = 3, .kind = Kind::kProcesses, .timeout_seconds = 60};
  for (const auto& hosts : {std::vector<int>{}, std::vector<int>{2, 1}}) {
    world.hosts = hosts;
    world::run(world, [](Rank& rank) {
      Floats a(1000, 1.0f);
      sum_is_right(rank, rank.comm, "the whole");
      rank.meet();
      if (rank.rank == 1) _exit(0);
      COMM_FAILS(
          rank, commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, rank.comm, nullptr),
          commRemoteError, "rank 1");
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
    });
  }
}

TEST(Destroy, OfOneRankDoesNotDisturbTheOthersThatAreNotDone) {
  for (const World& world : worlds(3)) {
    world::run(world, [](Rank& rank) {
      comm_t other = nullptr;
      COMM_OK(rank, commSplit(rank.comm, 0, 0, &other, nullptr));
      for (int i = 0; i < 20; ++i) {
        Floats a(100 + static_cast<size_t>(i) * 500, 1.0f);
        COMM_OK(rank, commBcast(a.data(), a.size(), commFloat, i % 3, other, nullptr));
      }
      // Whoever is first goes first; the root of the last broadcast does not wait for its readers.
      COMM_OK(rank, commDestroy(other));
      sum_is_right(rank, rank.comm, "the whole");
    });
  }
}

TEST(Statistics, TellWhatACommunicatorHolds) {
  world::run({.nranks = 2, .environment = {{"COMM_SHM_DISABLE", "1"}}}, [](Rank& rank) {
    sum_is_right(rank, rank.comm, "the whole");
    commMemStats_t stats{};
    stats.size = sizeof stats;
    COMM_OK(rank, commGetMemStats(rank.comm, &stats));
    rank.expect(stats.channels >= 2, "channels: " + std::to_string(stats.channels));
    rank.expect(stats.sockets >= 2, "sockets: " + std::to_string(stats.sockets));
    rank.expect(stats.hostBytes > 0, "no host bytes");
    rank.expect(stats.deviceBytes == 0 && stats.pinnedBytes == 0, "device memory");
  });
}

TEST(Windows, OfDifferentSizesAreRefused) {
  world::run({.nranks = 2}, [](Rank& rank) {
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 16384));
    commWindow_t window = nullptr;
    COMM_OK(rank, commWindowRegister(rank.comm, memory, 8192, &window, COMM_WIN_COLL_SYMMETRIC));
    COMM_OK(rank, commWindowDeregister(rank.comm, window));
    const size_t size = rank.rank == 0 ? 4096 : 8192;
    COMM_FAILS(rank, commWindowRegister(rank.comm, memory, size, &window, 0), commInvalidUsage,
               "4096", "8192");
    sum_is_right(rank, rank.comm, "the whole");
    COMM_OK(rank, commMemFree(memory));
  });
}

TEST(Scalable, InitializationTakesSeveralIds) {
  commUniqueId ids[2];
  ASSERT_EQ(commGetUniqueId(&ids[0]), commSuccess);
  ASSERT_EQ(commGetUniqueId(&ids[1]), commSuccess);
  world::run({.nranks = 5, .connected = false}, [&](Rank& rank) {
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    COMM_OK(rank, commInitRankScalable(&rank.comm, rank.nranks, rank.rank, 2, ids, &config));
    place_is(rank, rank.comm, rank.rank, 5, "the whole");
    sum_is_right(rank, rank.comm, "the whole");
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  });
}

TEST(Groups, CreateSeveralCommunicatorsOfOneThread) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  comm_t comms[3] = {};
  ASSERT_EQ(commGroupStart(), commSuccess);
  for (int r = 0; r < 3; ++r) ASSERT_EQ(commInitRank(&comms[r], 3, id, r), commSuccess);
  ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
  int rank = -1;
  EXPECT_EQ(commUserRank(comms[2], &rank), commSuccess);
  EXPECT_EQ(rank, 2);
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

TEST(Init, WithDifferentNumbersOfRanksIsRefusedOnAllOfThem) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  world::run({.nranks = 2, .connected = false}, [&](Rank& rank) {
    comm_t comm = nullptr;
    COMM_FAILS(rank, commInitRank(&comm, rank.rank == 0 ? 2 : 3, id, rank.rank), commInvalidUsage,
               "nranks");
    rank.expect(comm == nullptr, "a handle without a communicator");
  });
}

TEST(Launcher, OwnVariablesMakeAGroup) {
  if (world::kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer does not follow this fork";
  const std::string path = testing::TempDir() + "comm_id_" + std::to_string(getpid());
  World world{.nranks = 3, .kind = Kind::kProcesses, .connected = false};
  world.environment = {{"COMM_ID", "file://" + path}, {"COMM_NRANKS", "3"}};
  world::run(world, [](Rank& rank) {
    setenv("COMM_RANK", std::to_string(rank.rank).c_str(), 1);
    COMM_OK(rank, commInitFromLauncher(&rank.comm));
    place_is(rank, rank.comm, rank.rank, 3, "the launched group");
    sum_is_right(rank, rank.comm, "the launched group");
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  });
  unlink(path.c_str());
}

TEST(Launcher, WithoutOneThereIsAGroupOfOne) {
  if (world::kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer does not follow this fork";
  world::run({.nranks = 1, .kind = Kind::kProcesses, .connected = false}, [](Rank& rank) {
    COMM_OK(rank, commInitFromLauncher(&rank.comm));
    place_is(rank, rank.comm, 0, 1, "the group of one");
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  });
}

TEST(Fork, AChildDoesNotInheritItsParentsCommunicators) {
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    sum_is_right(rank, rank.comm, "the whole");
    const pid_t child = fork();
    if (child == 0) {
      int value = 0;
      bool good = commCount(rank.comm, &value) == commInvalidUsage &&
                  commBarrier(rank.comm, nullptr) == commInvalidUsage &&
                  commDestroy(rank.comm) == commInvalidUsage &&
                  std::string(commGetLastError(nullptr)).find("parent") != std::string::npos;
      // But it may make its own.
      commUniqueId id;
      comm_t own = nullptr;
      good = good && commGetUniqueId(&id) == commSuccess &&
             commInitRank(&own, 1, id, 0) == commSuccess &&
             commBarrier(own, nullptr) == commSuccess && commDestroy(own) == commSuccess;
      _exit(good ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    rank.expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child saw something else");
    sum_is_right(rank, rank.comm, "the whole, after the fork");
  });
}

}  // namespace
