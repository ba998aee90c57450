// A rank that leaves in good order (commDestroy) before the others: who still needs it hears that
// it left, at once; who only needs what it did before is not disturbed.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Environment;
using world::Rank;
using world::World;

using Floats = std::vector<float>;

constexpr int kLeaver = 1;

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

World over_shm(int nranks) { return {.nranks = nranks, .environment = {{"COMM_TIMEOUT", "30"}}}; }

World over_sockets(int nranks) {
  return {.nranks = nranks, .environment = {{"COMM_TIMEOUT", "30"}, {"COMM_SHM_DISABLE", "1"}}};
}

commResult_t sum(Rank& rank, Floats& data) {
  return commAllReduce(data.data(), data.data(), data.size(), commFloat, commSum, rank.comm,
                       nullptr);
}

// What the others do when rank 1 has left.
struct Need {
  const char* name;
  commResult_t (*call)(Rank& rank);
};

const Need kNeeds[] = {
    {"a barrier", [](Rank& rank) { return commBarrier(rank.comm, nullptr); }},
    {"a small all-reduce",
     [](Rank& rank) {
       Floats data(10, 1.0f);
       return sum(rank, data);
     }},
    {"a large all-reduce",
     [](Rank& rank) {
       Floats data(1 << 20, 1.0f);
       return sum(rank, data);
     }},
    {"a large broadcast by rank 1",
     [](Rank& rank) {
       Floats data(1 << 20, 1.0f);
       return commBcast(data.data(), data.size(), commFloat, kLeaver, rank.comm, nullptr);
     }},
    {"an all-reduce after a broadcast that waits for nobody",
     [](Rank& rank) {
       Floats data(1 << 20, 1.0f);
       const commResult_t result = commBcast(data.data(), 10, commFloat, 0, rank.comm, nullptr);
       return result == commSuccess ? sum(rank, data) : result;
     }},
    {"a receive",
     [](Rank& rank) {
       Floats data(1000);
       return commRecv(data.data(), data.size(), commFloat, kLeaver, rank.comm, nullptr);
     }},
    {"a large send",
     [](Rank& rank) {
       Floats data(1 << 22);
       return commSend(data.data(), data.size(), commFloat, kLeaver, rank.comm, nullptr);
     }},
};

void leave_before(const Need& need, const World& world, bool after_work) {
  world::run(world, [&](Rank& rank) {
    rank.meet();  // nobody fails while another is still in commInitRank
    Floats data(1 << 16, 1.0f);
    if (after_work) COMM_OK(rank, sum(rank, data));
    if (rank.rank == kLeaver) return;
    rank.expect_error(need.call(rank), commRemoteError, {"rank 1 left"}, need.name, rank.comm);
  });
}

TEST(RankThatLeaves, IsNamedToThoseWhoWaitInSharedMemory) {
  for (const Need& need : kNeeds)
    for (const bool after_work : {false, true}) leave_before(need, over_shm(3), after_work);
}

TEST(RankThatLeaves, IsNamedToThoseWhoWaitOnSockets) {
  for (const Need& need : kNeeds) leave_before(need, over_sockets(3), true);
}

// Eleven ranks: most have no link with the one that leaves.
TEST(RankThatLeaves, IsKnownToRanksThatHaveNoLinkWithIt) {
  for (int waiter : {0, 4, 8}) {
    std::atomic<bool> told{false};
    world::run(over_shm(11), [&](Rank& rank) {
      rank.meet();
      if (rank.rank == kLeaver) return;
      if (rank.rank == waiter) {
        Floats data(10);
        rank.expect_error(
            commRecv(data.data(), data.size(), commFloat, kLeaver, rank.comm, nullptr),
            commRemoteError, {"rank 1 left"}, "commRecv", rank.comm);
        told = true;
      }
      while (!told) nap(1);
    });
  }
}

void leave_bytes_behind(const World& world, int rounds, int most_naps) {
  world::run(world, [&](Rank& rank) {
    const comm_t parent = rank.comm;
    for (int round = 0; round < rounds; ++round) {
      comm_t comm = nullptr;
      COMM_OK(rank, commSplit(parent, 0, rank.rank, &comm, nullptr));
      const int wait = round % (most_naps + 1);
      const int root = round % rank.nranks;
      Floats data(static_cast<size_t>(round % 3 == 0 ? 20000 : 100));
      for (float& value : data) value = static_cast<float>(rank.rank == root ? round : -1);
      const bool by_messages = round % 2 == 0;
      if (rank.rank != root && wait > 0) nap(wait);
      if (!by_messages) {
        COMM_OK(rank, commBcast(data.data(), data.size(), commFloat, root, comm, nullptr));
      } else if (rank.rank == root) {
        COMM_OK(rank, commGroupStart());
        for (int peer = 0; peer < rank.nranks; ++peer)
          if (peer != root)
            COMM_OK(rank, commSend(data.data(), data.size(), commFloat, peer, comm, nullptr));
        COMM_OK(rank, commGroupEnd());
      } else {
        COMM_OK(rank, commRecv(data.data(), data.size(), commFloat, root, comm, nullptr));
      }
      rank.require(data.front() == static_cast<float>(round) && data.back() == data.front(),
                   "wrong values in round " + std::to_string(round));
      COMM_OK(rank, commDestroy(comm));
    }
  });
}

TEST(RankThatLeaves, LeavesItsBytesBehindInSharedMemory) {
  leave_bytes_behind(over_shm(3), world::kSanitized ? 40 : 150, 6);
}

TEST(RankThatLeaves, LeavesItsBytesBehindOnSockets) {
  leave_bytes_behind(over_sockets(3), world::kSanitized ? 20 : 60, 6);
}

// Longer than anybody waits for a connection of a rank that has left.
TEST(RankThatLeaves, LeavesItsBytesBehindForLongOnSockets) {
  world::run(over_sockets(2), [](Rank& rank) {
    Floats data(1000, static_cast<float>(1 - rank.rank));
    if (rank.rank == 0) {
      COMM_OK(rank, commSend(data.data(), data.size(), commFloat, 1, rank.comm, nullptr));
      return;
    }
    nap(800);
    COMM_OK(rank, commRecv(data.data(), data.size(), commFloat, 0, rank.comm, nullptr));
    rank.expect(data[999] == 1.0f, "wrong values");
  });
}

}  // namespace
