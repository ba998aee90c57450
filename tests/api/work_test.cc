// How work is handed over: groups, several communicators of one thread, host streams and
// non-blocking communicators. The results are simple sums; tests/collectives looks at values.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Kind;
using world::Rank;
using world::World;

constexpr size_t kCount = 1000;

using Floats = std::vector<float>;

Floats filled(float value, size_t count = kCount) { return Floats(count, value); }

bool all_are(const Floats& values, float wanted) {
  return std::all_of(values.begin(), values.end(), [&](float value) { return value == wanted; });
}

// 0 + 1 + ... + n - 1
float sum_of_ranks(int nranks) { return static_cast<float>(nranks * (nranks - 1) / 2); }

// Waits for a non-blocking communicator; the state it comes to.
commResult_t settle(comm_t comm) {
  commResult_t state = commInProgress;
  for (int i = 0; i < 60000 && state == commInProgress; ++i) {
    if (commGetAsyncError(comm, &state) != commSuccess) return commInternalError;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return state;
}

// All ranks of a group in this thread.
class All : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    comms_.resize(static_cast<size_t>(GetParam()));
    ASSERT_EQ(commInitAll(comms_.data(), GetParam(), nullptr), commSuccess)
        << commGetLastError(nullptr);
  }
  void TearDown() override {
    for (const comm_t comm : comms_) EXPECT_EQ(commDestroy(comm), commSuccess);
  }
  std::vector<comm_t> comms_;
};
INSTANTIATE_TEST_SUITE_P(Ranks, All, testing::Values(1, 2, 5));

TEST_P(All, RanksOfOneThreadReduceInAGroup) {
  const int n = GetParam();
  for (const size_t count : {size_t{10}, size_t{50000}, size_t{700000}}) {
    std::vector<Floats> in, out;
    for (int r = 0; r < n; ++r) {
      in.push_back(filled(static_cast<float>(r), count));
      out.push_back(filled(-1, count));
    }
    ASSERT_EQ(commGroupStart(), commSuccess);
    for (size_t r = 0; r < in.size(); ++r) {
      int rank = -1;
      EXPECT_EQ(commUserRank(comms_[r], &rank), commSuccess);
      EXPECT_EQ(rank, static_cast<int>(r));
      EXPECT_EQ(
          commAllReduce(in[r].data(), out[r].data(), count, commFloat, commSum, comms_[r], nullptr),
          commSuccess);
    }
    ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
    for (const Floats& result : out) EXPECT_TRUE(all_are(result, sum_of_ranks(n)));
  }
}

TEST_P(All, RanksOfOneThreadExchangeMessagesInAGroup) {
  const int n = GetParam();
  // Everybody to everybody, oneself included, larger than any staging memory for the last.
  for (const size_t count : {size_t{0}, size_t{3}, size_t{400000}}) {
    std::vector<Floats> in, out;
    for (int i = 0; i < n * n; ++i) {
      in.push_back(filled(static_cast<float>(i), count));
      out.push_back(filled(-1, count));
    }
    ASSERT_EQ(commGroupStart(), commSuccess);
    for (int me = 0; me < n; ++me) {
      for (int peer = 0; peer < n; ++peer) {
        const comm_t comm = comms_[static_cast<size_t>(me)];
        EXPECT_EQ(commSend(in[static_cast<size_t>(me * n + peer)].data(), count, commFloat, peer,
                           comm, nullptr),
                  commSuccess);
        EXPECT_EQ(commRecv(out[static_cast<size_t>(peer * n + me)].data(), count, commFloat, peer,
                           comm, nullptr),
                  commSuccess);
      }
    }
    ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
    EXPECT_EQ(in, out);
  }
}

TEST_P(All, RanksOfOneThreadSplitInAGroup) {
  const int n = GetParam();
  std::vector<comm_t> parts(comms_.size(), nullptr);
  ASSERT_EQ(commGroupStart(), commSuccess);
  for (int r = 0; r < n; ++r)
    EXPECT_EQ(commSplit(comms_[static_cast<size_t>(r)], r % 2, -r, &parts[static_cast<size_t>(r)],
                        nullptr),
              commSuccess);
  ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
  for (int r = 0; r < n; ++r) {
    int rank = -1, count = -1;
    EXPECT_EQ(commCount(parts[static_cast<size_t>(r)], &count), commSuccess);
    EXPECT_EQ(commUserRank(parts[static_cast<size_t>(r)], &rank), commSuccess);
    EXPECT_EQ(count, (n - r % 2 + 1) / 2);
    EXPECT_EQ(rank, count - 1 - r / 2);
    EXPECT_EQ(commDestroy(parts[static_cast<size_t>(r)]), commSuccess);
  }
}

class Groups : public testing::TestWithParam<World> {};
INSTANTIATE_TEST_SUITE_P(
    Over, Groups,
    testing::Values(World{.nranks = 3},
                    World{.nranks = 3, .environment = {{"COMM_SHM_DISABLE", "1"}}},
                    World{.nranks = 3, .kind = Kind::kProcesses, .hosts = {2, 1}},
                    World{.nranks = 3, .environment = {{"COMM_LAUNCH_MODE", "GROUP"}}}));

TEST_P(Groups, RunSeveralOperationsOfOneCommunicator) {
  world::run(GetParam(), [](Rank& rank) {
    const auto me = static_cast<float>(rank.rank);
    const int next = (rank.rank + 1) % rank.nranks;
    const int previous = (rank.rank + rank.nranks - 1) % rank.nranks;
    for (const size_t count : {size_t{4}, kCount, size_t{200000}}) {
      Floats a = filled(me, count), b = filled(-1, count),
             c = filled(rank.rank == 1 ? 9 : 0, count);
      Floats d = filled(me, count), e = filled(-1, count), f = filled(-1, count),
             g = filled(-1, count);
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank,
              commAllReduce(a.data(), b.data(), count, commFloat, commSum, rank.comm, nullptr));
      COMM_OK(rank, commGroupStart());  // groups nest
      COMM_OK(rank, commRecv(e.data(), count, commFloat, previous, rank.comm, nullptr));
      COMM_OK(rank, commRecv(f.data(), count, commFloat, rank.rank, rank.comm, nullptr));
      COMM_OK(rank, commBcast(c.data(), count, commFloat, 1, rank.comm, nullptr));
      COMM_OK(rank, commGroupEnd());
      rank.expect(b[0] == -1, "an inner group's end ran the work");
      // Two messages to one peer match in order.
      COMM_OK(rank, commRecv(g.data(), count, commFloat, previous, rank.comm, nullptr));
      COMM_OK(rank, commSend(d.data(), count, commFloat, next, rank.comm, nullptr));
      COMM_OK(rank, commSend(a.data(), count, commFloat, rank.rank, rank.comm, nullptr));
      COMM_OK(rank, commSend(c.data(), count, commFloat, next, rank.comm, nullptr));
      COMM_OK(rank, commGroupEnd());
      rank.expect(all_are(b, sum_of_ranks(rank.nranks)), "the sum is wrong");
      rank.expect(all_are(c, 9), "the broadcast is wrong");
      rank.expect(all_are(e, static_cast<float>(previous)), "the neighbour's message is wrong");
      rank.expect(all_are(f, me), "the message to oneself is wrong");
      rank.expect(all_are(g, 9), "the second message is wrong");
    }
    // An empty group does nothing.
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commGroupEnd());
  });
}

TEST(Groups, EndedOrSimulatedWithoutAStartAreRefused) {
  EXPECT_EQ(commGroupEnd(), commInvalidUsage);
  EXPECT_NE(std::string(commGetLastError(nullptr)).find("commGroupStart"), std::string::npos);
  EXPECT_EQ(commGroupSimulateEnd(nullptr), commInvalidUsage);
}

TEST(Groups, WithABadCallRunNothingAndReportIt) {
  world::run({.nranks = 2}, [](Rank& rank) {
    Floats a = filled(1), b = filled(-1);
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank,
            commAllReduce(a.data(), b.data(), kCount, commFloat, commSum, rank.comm, nullptr));
    COMM_FAILS(rank, commBcast(a.data(), kCount, commFloat, 17, rank.comm, nullptr),
               commInvalidArgument, "root 17");
    COMM_FAILS(rank, commGroupEnd(), commInvalidArgument, "root 17");
    rank.expect(all_are(b, -1), "a group with an error ran");
    // The group is closed and the communicator unharmed.
    COMM_OK(rank,
            commAllReduce(a.data(), b.data(), kCount, commFloat, commSum, rank.comm, nullptr));
    rank.expect(all_are(b, 2), "the sum is wrong");
  });
}

TEST(Groups, WithALoneMessageToOneselfAreRefused) {
  commUniqueId id;
  comm_t comm = nullptr;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  ASSERT_EQ(commInitRank(&comm, 1, id, 0), commSuccess);
  float value = 1;
  EXPECT_EQ(commSend(&value, 1, commFloat, 0, comm, nullptr), commInvalidUsage);
  EXPECT_NE(std::string(commGetLastError(nullptr)).find("itself"), std::string::npos)
      << commGetLastError(nullptr);
  EXPECT_EQ(commDestroy(comm), commSuccess);
}

TEST(Groups, SimulatedTellATimeAndRunNothing) {
  world::run({.nranks = 2}, [](Rank& rank) {
    Floats a = filled(1), b = filled(-1);
    commSimInfo_t info = COMM_SIM_INFO_INITIALIZER;
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank,
            commAllReduce(a.data(), b.data(), kCount, commFloat, commSum, rank.comm, nullptr));
    COMM_OK(rank, commGroupSimulateEnd(&info));
    rank.expect(info.estimatedTime > 0, "no time was estimated");
    rank.expect(all_are(b, -1), "a simulated group ran");
    commSimInfo_t bad = COMM_SIM_INFO_INITIALIZER;
    bad.magic = 7;
    COMM_OK(rank, commGroupStart());
    COMM_FAILS(rank, commGroupSimulateEnd(&bad), commInvalidArgument, "magic 0x7");
    // The group is still there. A structure of an older header has no room for the time.
    commSimInfo_t old = COMM_SIM_INFO_INITIALIZER;
    old.size = offsetof(commSimInfo_t, estimatedTime);
    old.estimatedTime = -5;
    COMM_OK(rank, commGroupSimulateEnd(&old));
    rank.expect(old.estimatedTime == -5, "written beyond the structure's size");
    old.size = 3;
    COMM_OK(rank, commGroupStart());
    COMM_FAILS(rank, commGroupSimulateEnd(&old), commInvalidArgument, "size 3");
    COMM_OK(rank, commGroupEnd());
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
  });
}

class Streams : public testing::TestWithParam<World> {};
INSTANTIATE_TEST_SUITE_P(Over, Streams,
                         testing::Values(World{.nranks = 3},
                                         World{.nranks = 2,
                                               .environment = {{"COMM_SHM_DISABLE", "1"}}},
                                         World{.nranks = 2, .kind = Kind::kProcesses}));

TEST_P(Streams, KeepTheOrderOfWhatIsQueued) {
  world::run(GetParam(), [](Rank& rank) {
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    COMM_OK(rank, commHostStreamQuery(stream));
    Floats a = filled(1);
    // Every call doubles or trebles what the one before left.
    float wanted = 1;
    for (int i = 0; i < 8; ++i) {
      COMM_OK(rank,
              commAllReduce(a.data(), a.data(), kCount, commFloat, commSum, rank.comm, stream));
      wanted *= static_cast<float>(rank.nranks);
    }
    COMM_OK(rank, commHostStreamSynchronize(stream));
    rank.expect(all_are(a, wanted), "calls of a stream ran out of order or not at all");
    COMM_OK(rank, commHostStreamQuery(stream));
    // A call without a stream comes after what is queued.
    COMM_OK(rank, commAllReduce(a.data(), a.data(), kCount, commFloat, commSum, rank.comm, stream));
    COMM_OK(rank,
            commAllReduce(a.data(), a.data(), kCount, commFloat, commMax, rank.comm, nullptr));
    rank.expect(all_are(a, wanted * static_cast<float>(rank.nranks)), "NULL overtook the stream");
    COMM_OK(rank, commHostStreamDestroy(stream));
    COMM_FAILS(rank, commHostStreamQuery(stream), commInvalidArgument, "stream");
  });
}

TEST_P(Streams, ServeSeveralCommunicatorsAndACommunicatorSeveralStreams) {
  world::run(GetParam(), [](Rank& rank) {
    comm_t other = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, -rank.rank, &other, nullptr));
    cudaStream_t first = nullptr, second = nullptr;
    COMM_OK(rank, commHostStreamCreate(&first));
    COMM_OK(rank, commHostStreamCreate(&second));
    Floats a = filled(1), b = filled(1), c = filled(static_cast<float>(rank.rank)), d = filled(-1);
    float wanted = 1;
    for (int i = 0; i < 6; ++i) {
      const comm_t comm = i % 2 == 0 ? rank.comm : other;
      COMM_OK(rank, commAllReduce(a.data(), a.data(), kCount, commFloat, commSum, comm, first));
      COMM_OK(rank,
              commAllReduce(b.data(), b.data(), kCount, commFloat, commSum, rank.comm, second));
      wanted *= static_cast<float>(rank.nranks);
    }
    // A group may queue on a stream, too.
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commAllReduce(c.data(), d.data(), kCount, commFloat, commSum, other, second));
    COMM_OK(rank, commAllReduce(b.data(), b.data(), kCount, commFloat, commMax, rank.comm, second));
    COMM_OK(rank, commGroupEnd());
    COMM_OK(rank, commHostStreamSynchronize(first));
    COMM_OK(rank, commHostStreamSynchronize(second));
    rank.expect(all_are(a, wanted), "one stream over two communicators lost its order");
    rank.expect(all_are(b, wanted), "the second stream's results are wrong");
    rank.expect(all_are(d, sum_of_ranks(rank.nranks)), "the group's result is wrong");
    COMM_OK(rank, commHostStreamDestroy(first));
    COMM_OK(rank, commDestroy(other));
    COMM_OK(rank, commHostStreamDestroy(second));
  });
}

TEST(Streams, ThatNobodySynchronizesAreFinishedByDestroy) {
  world::run({.nranks = 2}, [](Rank& rank) {
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    Floats a = filled(1, 300000);
    for (int i = 0; i < 4; ++i)
      COMM_OK(rank,
              commAllReduce(a.data(), a.data(), a.size(), commFloat, commSum, rank.comm, stream));
    const comm_t comm = std::exchange(rank.comm, nullptr);
    COMM_OK(rank, commDestroy(comm));
    rank.expect(all_are(a, 16), "destroy did not finish the queued work");
    COMM_OK(rank, commHostStreamDestroy(stream));
  });
}

TEST(Streams, CarryTheFirstFailure) {
  world::run({.nranks = 2}, [](Rank& rank) {
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    Floats a = filled(1);
    const size_t count = rank.rank == 0 ? kCount : kCount - 1;
    COMM_OK(rank, commAllReduce(a.data(), a.data(), count, commFloat, commSum, rank.comm, stream));
    COMM_FAILS(rank, commHostStreamSynchronize(stream), commInvalidUsage, "rank 0", "rank 1");
    COMM_FAILS(rank, commHostStreamQuery(stream), commInvalidUsage, "rank 0", "rank 1");
    (void)commHostStreamDestroy(stream);
  });
}

TEST(NonBlocking, CommunicatorsAreMadeUsedAndEndedByPolling) {
  for (const Kind kind : {Kind::kThreads, Kind::kProcesses}) {
    World world{.nranks = 3, .kind = kind};
    world::run(world, [](Rank& rank) {
      commConfig_t config = COMM_CONFIG_INITIALIZER;
      config.blocking = 0;
      comm_t comm = nullptr;
      const commResult_t begun = commSplit(rank.comm, 0, 0, &comm, &config);
      rank.expect(begun == commInProgress || begun == commSuccess, "commSplit failed");
      rank.expect(settle(comm) == commSuccess, std::string("split: ") + commGetLastError(comm));
      Floats a = filled(static_cast<float>(rank.rank)), b = filled(-1);
      const commResult_t queued =
          commAllReduce(a.data(), b.data(), kCount, commFloat, commSum, comm, nullptr);
      rank.expect(queued == commInProgress || queued == commSuccess, commGetLastError(comm));
      rank.expect(settle(comm) == commSuccess, "the all-reduce failed");
      rank.expect(all_are(b, sum_of_ranks(rank.nranks)), "the sum is wrong");
      COMM_OK(rank, commGroupStart());
      const commResult_t in_group = commBcast(a.data(), kCount, commFloat, 2, comm, nullptr);
      rank.expect(in_group == commSuccess || in_group == commInProgress, "bcast in a group");
      const commResult_t ended = commGroupEnd();
      rank.expect(ended == commInProgress || ended == commSuccess, "group end");
      rank.expect(settle(comm) == commSuccess, "the group failed");
      rank.expect(all_are(a, 2), "the broadcast is wrong");
      const commResult_t finalized = commFinalize(comm);
      rank.expect(finalized == commInProgress || finalized == commSuccess, "finalize");
      rank.expect(settle(comm) == commSuccess, "finalize failed");
      COMM_OK(rank, commDestroy(comm));
    });
  }
}

TEST(NonBlocking, InitializationIsPolled) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  World world{.nranks = 3, .connected = false};
  world::run(world, [&](Rank& rank) {
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = 0;
    // The last rank comes late: until then, nobody's communicator is ready.
    if (rank.rank == 2) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    comm_t comm = nullptr;
    const commResult_t begun = commInitRankConfig(&comm, rank.nranks, id, rank.rank, &config);
    rank.require(begun == commInProgress || begun == commSuccess, "init failed at once");
    rank.require(comm != nullptr, "no handle");
    rank.expect(settle(comm) == commSuccess, commGetLastError(comm));
    float value = 1;
    const commResult_t queued = commAllReduce(&value, &value, 1, commFloat, commSum, comm, nullptr);
    rank.expect(queued == commInProgress || queued == commSuccess, commGetLastError(comm));
    rank.expect(settle(comm) == commSuccess, "the all-reduce failed");
    rank.expect(value == 3, "the sum is wrong");
    COMM_OK(rank, commDestroy(comm));
  });
}

TEST(NonBlocking, AnInitializationThatCannotSucceedIsAborted) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  commConfig_t config = COMM_CONFIG_INITIALIZER;
  config.blocking = 0;
  comm_t comm = nullptr;
  ASSERT_EQ(commInitRankConfig(&comm, 2, id, 0, &config), commInProgress);  // rank 1 never comes
  commResult_t state = commSuccess;
  EXPECT_EQ(commGetAsyncError(comm, &state), commSuccess);
  EXPECT_EQ(state, commInProgress);
  float value = 1;
  EXPECT_EQ(commAllReduce(&value, &value, 1, commFloat, commSum, comm, nullptr), commInvalidUsage);
  EXPECT_EQ(commAbort(comm), commSuccess) << commGetLastError(nullptr);
  EXPECT_EQ(commGetAsyncError(comm, &state), commInvalidArgument);
}

}  // namespace
