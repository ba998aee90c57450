// Ranks that make different calls: commInvalidUsage on every rank, with both ranks and both calls
// in the text, in shared memory and over sockets, as threads and as processes; and no hang.
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <utility>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Kind;
using world::Rank;
using world::World;

using Floats = std::vector<float>;

struct Buffers {
  Floats a = Floats(1 << 20, 1.0f);
  Floats b = Floats(1 << 20, 0.0f);
};

struct Mismatch {
  const char* name;
  // What rank 0 does, what the others do; the same in `parts` as in the text.
  commResult_t (*first)(Rank&, Buffers&);
  commResult_t (*others)(Rank&, Buffers&);
  std::vector<std::string> parts;
};

commResult_t reduce_all(Rank& r, Buffers& m, size_t count, commDataType_t type, commRedOp_t op) {
  return commAllReduce(m.a.data(), m.b.data(), count, type, op, r.comm, nullptr);
}

template <size_t kCount, int kType = commFloat, int kOp = commSum>
commResult_t all_reduce(Rank& r, Buffers& m) {
  return reduce_all(r, m, kCount, static_cast<commDataType_t>(kType),
                    static_cast<commRedOp_t>(kOp));
}

template <size_t kCount, int kRoot>
commResult_t bcast(Rank& r, Buffers& m) {
  return commBcast(m.a.data(), kCount, commFloat, kRoot, r.comm, nullptr);
}

template <size_t kCount>
commResult_t all_gather(Rank& r, Buffers& m) {
  return commAllGather(m.a.data(), m.b.data(), kCount, commFloat, r.comm, nullptr);
}

// Everybody sends kCount to everybody, but the first rank expects one more from the others.
template <size_t kCount, int kMore>
commResult_t all_to_all_v(Rank& r, Buffers& m) {
  std::vector<size_t> send, recv, displs;
  for (int i = 0; i < r.nranks; ++i) {
    send.push_back(kCount);
    recv.push_back(kCount + (i == r.rank ? 0 : kMore));
    displs.push_back(static_cast<size_t>(i) * (kCount + kMore));
  }
  return commAlltoAllv(m.a.data(), send.data(), displs.data(), m.b.data(), recv.data(),
                       displs.data(), commFloat, r.comm, nullptr);
}

template <size_t kCount>
commResult_t gather_v(Rank& r, Buffers& m) {
  std::vector<size_t> counts(static_cast<size_t>(r.nranks), 100);
  counts[1] = kCount;
  std::vector<size_t> displs;
  for (size_t i = 0; i < counts.size(); ++i) displs.push_back(i * 1000);
  const size_t mine = counts[static_cast<size_t>(r.rank)];
  return commAllGatherv(m.a.data(), mine, m.b.data(), counts.data(), displs.data(), commFloat,
                        r.comm, nullptr);
}

commResult_t gather_nothing_v(Rank& r, Buffers& m) {
  const std::vector<size_t> counts(static_cast<size_t>(r.nranks), 0);
  return commAllGatherv(m.a.data(), 0, m.b.data(), counts.data(), counts.data(), commFloat, r.comm,
                        nullptr);
}

// Rank 0 sends kCount to each of the others.
template <size_t kCount, int kType = commFloat>
commResult_t send_all(Rank& r, Buffers& m) {
  commResult_t result = commGroupStart();
  for (int peer = 1; peer < r.nranks && result == commSuccess; ++peer)
    result =
        commSend(m.a.data(), kCount, static_cast<commDataType_t>(kType), peer, r.comm, nullptr);
  const commResult_t ended = commGroupEnd();
  return result == commSuccess ? ended : result;
}

template <size_t kCount, int kType = commFloat>
commResult_t receive(Rank& r, Buffers& m) {
  return commRecv(m.b.data(), kCount, static_cast<commDataType_t>(kType), 0, r.comm, nullptr);
}

const Mismatch kMismatches[] = {
    {"SmallCounts", all_reduce<10>, all_reduce<11>, {"allreduce", "10", "11"}},
    {"LargeCounts", all_reduce<300000>, all_reduce<300001>, {"allreduce", "300000", "300001"}},
    {"SmallAndLargeCounts", all_reduce<10>, all_reduce<300000>, {"allreduce", "10", "300000"}},
    {"Types", all_reduce<500>, all_reduce<500, commInt32>, {"float32", "int32"}},
    {"TypesOfOtherSizes", all_reduce<50000, commDouble>, all_reduce<50000>, {"float64", "float32"}},
    {"Operators", all_reduce<500>, all_reduce<500, commFloat, commMax>, {"sum", "max"}},
    {"AverageAndSum", all_reduce<50000>, all_reduce<50000, commFloat, commAvg>, {"sum", "avg"}},
    {"Roots", bcast<600, 0>, bcast<600, 1>, {"broadcast", "root "}},
    {"LargeRoots", bcast<100000, 0>, bcast<100000, 1>, {"broadcast", "root "}},
    {"Collectives", all_reduce<700>, all_gather<700>, {"allreduce", "allgather"}},
    {"LargeCollectives", all_reduce<200000>, all_gather<200000>, {"allreduce", "allgather"}},
    {"GatherTables", gather_v<100>, gather_v<200>, {"allgatherv"}},
    {"PairsOfAllToAll", all_to_all_v<50, 1>, all_to_all_v<50, 0>, {"alltoallv"}},
    {"LargePairsOfAllToAll", all_to_all_v<80000, 1>, all_to_all_v<80000, 0>, {"alltoallv"}},
    {"CountsOfNothingAndSomething", all_reduce<0>, all_reduce<10>, {"count 0", "count 10"}},
    {"CountsOfALotAndNothing", all_reduce<300000>, all_reduce<0>, {"count 300000", "count 0"}},
    {"NothingToBroadcast", bcast<0, 0>, bcast<600, 0>, {"count 0", "count 600"}},
    {"NothingIsExpectedOfABroadcast", bcast<90000, 0>, bcast<0, 0>, {"count 90000", "count 0"}},
    {"NothingToGather", all_gather<0>, all_gather<40000>, {"count 0", "count 40000"}},
    {"EmptyTable", gather_nothing_v, gather_v<200>, {"allgatherv"}},
    {"NothingOfAllToAllIsSent", all_to_all_v<0, 4>, all_to_all_v<0, 0>, {"alltoallv"}},
    {"NothingOfAllToAllIsExpected", all_to_all_v<50, -50>, all_to_all_v<50, 0>, {"alltoallv"}},
    {"MessageSizes", send_all<20>, receive<21>, {"sendrecv", "20", "21"}},
    {"LargeMessageSizes", send_all<500000>, receive<400000>, {"sendrecv", "500000", "400000"}},
    {"EmptyMessageToAReceive", send_all<0>, receive<5>, {"sendrecv", "count 0", "count 5"}},
    {"MessageToAnEmptyReceive", send_all<5>, receive<0>, {"sendrecv", "count 0", "count 5"}},
    {"LargeMessageToAnEmptyReceive", send_all<500000>, receive<0>, {"sendrecv", "count 0"}},
    {"MessageTypes", send_all<20>, receive<20, commInt32>, {"float32", "int32"}},
};

void PrintTo(const Mismatch& mismatch, std::ostream* out) { *out << mismatch.name; }

class Mismatched : public testing::TestWithParam<Mismatch> {
 protected:
  static void check(const World& world) {
    const Mismatch& mismatch = GetParam();
    world::run(world, [&](Rank& rank) {
      Buffers buffers;
      // A rank may still be in the barrier when the others, through it, have failed already.
      commResult_t result = commBarrier(rank.comm, nullptr);
      if (result == commSuccess)
        result = rank.rank == 0 ? mismatch.first(rank, buffers) : mismatch.others(rank, buffers);
      // Whoever needs nothing from the others (two roots, say) is done before it could notice; then
      // the next call over the same channel fails and names the call whose message is left over.
      // One that has what it needs before the others find the message can end that call, too.
      for (int i = 0; i < 3 && result == commSuccess; ++i)
        result = all_gather<100000>(rank, buffers);
      const commResult_t seen = result;
      std::vector<std::string> parts = mismatch.parts;
      parts.insert(parts.end(), {"rank 0", rank.nranks == 2 ? "rank 1" : "rank "});
      rank.expect_error(seen, commInvalidUsage, parts, mismatch.name, rank.comm);
      (void)commAbort(std::exchange(rank.comm, nullptr));
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Calls, Mismatched, testing::ValuesIn(kMismatches),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(Mismatched, AreNamedInSharedMemory) {
  check({.nranks = 2});
  check({.nranks = 3, .kind = Kind::kProcesses});
}

TEST_P(Mismatched, AreNamedOverSockets) {
  check({.nranks = 2, .environment = {{"COMM_SHM_DISABLE", "1"}}});
  check({.nranks = 3, .kind = Kind::kProcesses, .environment = {{"COMM_SHM_DISABLE", "1"}}});
}

// The first calls are done before the ranks could notice that one of them made another.
void check_later(const World& world, const std::function<commResult_t(Rank&, Buffers&)>& calls,
                 const std::vector<std::string>& parts) {
  world::run(world, [&](Rank& rank) {
    Buffers buffers;
    commResult_t result = calls(rank, buffers);
    for (int i = 0; i < 3 && result == commSuccess; ++i) result = commBarrier(rank.comm, nullptr);
    const commResult_t seen = result;
    rank.expect_error(seen, commInvalidUsage, parts, "afterwards", rank.comm);
    (void)commAbort(std::exchange(rank.comm, nullptr));
  });
}

// Its block is in other lines than those which the others write.
TEST(MismatchedScatter, OfARankThatNobodyWaitsForIsNamed) {
  for (const Kind kind : {Kind::kThreads, Kind::kProcesses})
    check_later({.nranks = 3, .kind = kind},
                [](Rank& r, Buffers& m) {
                  const size_t count = r.rank == 2 ? 6 : 2;
                  return commScatter(m.a.data(), m.b.data(), count, commFloat, 0, r.comm, nullptr);
                },
                {"scatter", "count 2", "count 6", "rank 2"});  // and one of the others
}

// The others go by windows, as the call before has told them; the root does not wait for them.
// Both exchange eight bytes.
TEST(MismatchedSetup, OfASplitAndAWindowIsNamed) {
  world::run({.nranks = 3}, [](Rank& rank) {
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 1 << 16));
    comm_t part = nullptr;
    commWindow_t window = nullptr;
    const commResult_t result =
        rank.rank == 1
            ? commSplit(rank.comm, 0, 0, &part, nullptr)
            : commWindowRegister(rank.comm, memory, 1 << 16, &window, COMM_WIN_COLL_SYMMETRIC);
    rank.expect_error(result, commInvalidUsage, {"rank 1", "commSplit", "commWindowRegister"},
                      "commSplit on one rank, commWindowRegister on the others");
    COMM_OK(rank, commMemFree(memory));
  });
}

TEST(MismatchedBroadcast, OfARootThatGoesOnIsNamed) {
  check_later({.nranks = 3, .kind = Kind::kThreads},
              [](Rank& r, Buffers& m) {
                commResult_t result = commSuccess;
                for (int i = 0; i < 3 && result == commSuccess; ++i) {
                  const size_t count = i == 2 && r.rank == 0 ? 16000 : 16384;
                  result = commBcast(m.a.data(), count, commFloat, 0, r.comm, nullptr);
                }
                return result;
              },
              {"broadcast", "16384", "16000", "rank 0"});
}

// A call that is wrong on one rank alone fails there, before anything starts: the communicator goes
// on.
TEST(MessageToOneself, WithoutAPartnerDoesNotHurtTheCommunicator) {
  for (const int nranks : {1, 2}) {
    world::run({.nranks = nranks}, [](Rank& rank) {
      float from[4] = {1, 2, 3, 4}, to[4] = {};
      const auto send = [&](size_t count) {
        return commSend(from, count, commFloat, rank.rank, rank.comm, nullptr);
      };
      const auto receive = [&](size_t count) {
        return commRecv(to, count, commFloat, rank.rank, rank.comm, nullptr);
      };
      COMM_FAILS(rank, send(4), commInvalidUsage, "itself");
      COMM_FAILS(rank, receive(4), commInvalidUsage, "itself");
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, send(4));
      COMM_OK(rank, commAllReduce(from, to, 4, commFloat, commSum, rank.comm, nullptr));
      COMM_FAILS(rank, commGroupEnd(), commInvalidUsage, "sends 1 and receives 0");
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, send(4));
      COMM_OK(rank, receive(3));
      COMM_FAILS(rank, commGroupEnd(), commInvalidUsage, "count 4", "count 3");
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, send(4));
      COMM_OK(rank, receive(4));
      COMM_OK(rank, commGroupEnd());
      rank.expect(to[3] == 4, "the message to itself did not arrive");
      COMM_OK(rank, commAllReduce(from, to, 4, commFloat, commSum, rank.comm, nullptr));
      rank.expect(to[3] == 4.0f * static_cast<float>(rank.nranks), "a wrong sum afterwards");
    });
  }
}

TEST(EmptyMessages, AreMatchedLikeOthers) {
  for (const char* shm : {"0", "1"}) {
    world::run({.nranks = 2, .environment = {{"COMM_SHM_DISABLE", shm}}}, [](Rank& rank) {
      const int peer = 1 - rank.rank;
      float from[2] = {5, 6}, to[2] = {};
      for (int round = 0; round < 40; ++round) {  // more than a channel has slots
        COMM_OK(rank, commGroupStart());
        for (const size_t count : {0u, 2u, 0u}) {
          COMM_OK(rank, commSend(count == 0 ? nullptr : from, count, commFloat, peer, rank.comm,
                                 nullptr));
          COMM_OK(rank,
                  commRecv(count == 0 ? nullptr : to, count, commFloat, peer, rank.comm, nullptr));
        }
        COMM_OK(rank, commGroupEnd());
      }
      rank.expect(to[1] == 6, "wrong values");
    });
  }
}

}  // namespace
