// News: aborts, revokes and leaves, ranks as threads.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>

#include "src/bootstrap/overlay.h"
#include "tests/bootstrap/support.h"

namespace libcomm::testing {
namespace {

TEST(Overlay, IsSymmetricBoundedAndConnected) {
  for (int n : {2, 3, 4, 7, 64, 1000}) {
    for (int rank = 0; rank < n; ++rank) {
      const std::set<int> neighbours = overlay_neighbours(rank, n);
      EXPECT_LE(neighbours.size(), 5u);
      EXPECT_TRUE(neighbours.contains((rank + 1) % n));
      for (int peer : neighbours) EXPECT_TRUE(overlay_neighbours(peer, n).contains(rank));
    }
  }
}

TEST(Overlay, RingClosesAroundThoseWhoLeft) {
  const std::vector<int> ring = {0, 1, 2, 3, 4};
  EXPECT_EQ(ring_successor(ring, {}, 4), 0);
  EXPECT_EQ(ring_successor(ring, {3, 4, 0}, 2), 1);
  EXPECT_EQ(ring_successor(ring, {0, 1, 3, 4}, 2), 2);
}

TEST(Abort, ReachesEveryRankOnceWithTheFirstReason) {
  ThreadGroup group(9, knobs_with({}));
  ASSERT_OK(group.joined());
  group[4].raise(News::kAbort, error(Code::kSystem, "disk full").at_rank(4).in_op(12));
  group[4].raise(News::kAbort, error(Code::kSystem, "second reason"));
  for (int rank = 0; rank < 9; ++rank) {
    const Status reason = group.news[static_cast<size_t>(rank)]->await(News::kAbort);
    EXPECT_EQ(reason.message(), "disk full") << rank;
    EXPECT_EQ(reason.code(), Code::kSystem);
    EXPECT_EQ(reason.rank(), 4);  // who noticed; nobody said who is to blame
    EXPECT_EQ(reason.peer(), -1);
    EXPECT_EQ(reason.op(), 12u);
    EXPECT_EQ(group[rank].barrier().message(), "disk full");
    EXPECT_FALSE(group[rank].connect((rank + 1) % 9, Purpose::kTest, 0));
    EXPECT_EQ(group.news[static_cast<size_t>(rank)]->count(), 1u);
  }
}

TEST(Abort, EndsAnExchangeThatOthersAreIn) {
  ThreadGroup group(5, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(5, [&](int rank) {
    if (rank == 3)
      group[3].raise(News::kAbort, error(Code::kRemote, "gave up"));
    else
      EXPECT_EQ(group[rank].barrier().message(), "gave up");
  });
}

TEST(Revoke, IsHeardByAllAndLeavesExchangesAndDerivationWorking) {
  auto knobs = knobs_with({});
  ThreadGroup group(5, knobs);
  ASSERT_OK(group.joined());
  group[2].raise(News::kRevoke, error(Code::kRemote, "revoked"));
  run_ranks(5, [&](int rank) {
    EXPECT_EQ(group.news[static_cast<size_t>(rank)]->await(News::kRevoke).peer(), 2);
    EXPECT_OK(group[rank].barrier());
    const std::vector<int> all = {0, 1, 2, 3, 4};
    auto derived = group[rank].derive(all, 1, knobs, nullptr);
    EXPECT_OK(derived.status());
    if (derived) {
      EXPECT_OK((*derived)->barrier());
    }
  });
  // A failure after a revoke is still heard.
  group[0].raise(News::kAbort, error(Code::kRemote, "enough"));
  for (const auto& news : group.news) EXPECT_EQ(news->await(News::kAbort).peer(), 0);
}

TEST(Leave, IsNotADeath) {
  ThreadGroup group(9, knobs_with({}));
  ASSERT_OK(group.joined());
  for (int rank : {0, 3, 4, 8}) group[rank].leave();
  for (int rank : {0, 3, 4, 8}) group.ranks[static_cast<size_t>(rank)].reset();
  ::usleep(300'000);
  for (int rank : {1, 2, 5, 6, 7}) EXPECT_EQ(group.news[static_cast<size_t>(rank)]->count(), 0u);
}

TEST(Leave, KeepsThoseWhoStayConnected) {
  // Without 0, 3, 4, 5 and 6 no original link joins {1, 2} with {7, 8, 9}, except 9's parent 4.
  ThreadGroup group(11, knobs_with({}));
  ASSERT_OK(group.joined());
  for (int rank : {0, 3, 4, 5, 6, 10}) group.ranks[static_cast<size_t>(rank)].reset();
  group[8].raise(News::kAbort, error(Code::kRemote, "late"));
  for (int rank : {1, 2, 7, 9})
    EXPECT_EQ(group.news[static_cast<size_t>(rank)]->await(News::kAbort).peer(), 8) << rank;
}

TEST(Leave, EndsAnExchangeThatWaitsForTheLeaver) {
  ThreadGroup group(3, knobs_with({}));
  ASSERT_OK(group.joined());
  group.ranks[2].reset();
  const Status status = group[0].barrier();
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 2);
}

// In a tree of seven, 3 is a leaf below 1: nobody else waits for it directly.
TEST(MissingRank, InAnExchangeIsNamedToAll) {
  ThreadGroup group(7, knobs_with({{"BOOTSTRAP_TIMEOUT", "5"}}));
  ASSERT_OK(group.joined());
  std::atomic<int> waiting{0};
  run_ranks(7, [&](int rank) {
    if (rank == 3) return;
    // Who waits for others' words comes after them.
    while (rank == 0 && waiting != 5) std::this_thread::yield();
    ++waiting;
    const Status status = group[rank].barrier();
    EXPECT_EQ(status.code(), Code::kSystem);
    EXPECT_EQ(status.peer(), 3) << rank;
    EXPECT_EQ(status.message().find("rank 3 did not come to a set-up exchange"), 0u)
        << status.message();
  });
}

TEST(MissingRank, AtTheTreesRootIsNamedToAll) {
  ThreadGroup group(3, knobs_with({{"BOOTSTRAP_TIMEOUT", "2"}}));
  ASSERT_OK(group.joined());
  run_ranks(3, [&](int rank) {
    if (rank == 0) return;
    const Status status = group[rank].barrier();
    EXPECT_EQ(status.code(), Code::kSystem);
    EXPECT_EQ(status.peer(), 0);
    EXPECT_EQ(status.message().find("rank 0 did not answer in a set-up exchange"), 0u)
        << status.message();
  });
}

// The group that is made numbers its ranks anew, and has no addresses of its own yet.
TEST(MissingRank, OfAGroupThatIsDerivedIsNamedWithItsProcess) {
  ThreadGroup group(4, knobs_with({}));
  ASSERT_OK(group.joined());
  const auto hasty = knobs_with({{"BOOTSTRAP_TIMEOUT", "2"}});
  run_ranks(4, [&](int rank) {
    if (rank == 0 || rank == 3) return;
    const std::vector<int> members = {3, 1, 2};
    const Status status = group[rank].derive(members, 1, hasty, nullptr).status();
    EXPECT_EQ(status.code(), Code::kSystem);
    const std::string place = "(rank 0: " + group[rank].where(3) + ")";
    EXPECT_NE(status.message().find(place), std::string::npos)
        << status.message() << " lacks " << place;
  });
}

// Of seven ranks 3 and 4 wait for 1 in the tree, 0 waits for 1, and the others for 0.
TEST(AbortingMember, OfAGroupThatIsDerivedIsNamedToAllAtOnce) {
  const auto knobs = knobs_with({{"BOOTSTRAP_TIMEOUT", "60"}});
  for (const int delay_ms : {0, 3, 30}) {
    ThreadGroup group(7, knobs);
    ASSERT_OK(group.joined());
    run_ranks(7, [&](int rank) {
      if (rank == 1) {
        ::usleep(static_cast<useconds_t>(1000 * delay_ms));
        group[1].raise(News::kAbort, error(Code::kRemote, "rank 1 has had enough"));
        return;
      }
      const std::vector<int> members = {0, 1, 2, 3, 4, 5, 6};
      const Status status = group[rank].derive(members, 1, knobs, nullptr).status();
      EXPECT_EQ(status.message(), "rank 1 has had enough") << rank;
      EXPECT_EQ(status.code(), Code::kRemote);
      EXPECT_EQ(status.peer(), 1);
    });
  }
}

// Of a host that is gone, a rank that missed it tells, and says who it is.
TEST(LostMember, OfAGroupThatIsDerivedIsNamedToAllAtOnce) {
  const auto knobs = knobs_with({{"BOOTSTRAP_TIMEOUT", "60"}});
  ThreadGroup group(4, knobs);
  ASSERT_OK(group.joined());
  run_ranks(4, [&](int rank) {
    if (rank == 2) return;
    if (rank == 0)
      group[0].raise(News::kDeath,
                     error(Code::kRemote, "rank 2 does not answer").at_rank(0).with_peer(2));
    const std::vector<int> members = {0, 1, 2, 3};
    const Clock::time_point begin = Clock::now();
    const Status status = group[rank].derive(members, 1, knobs, nullptr).status();
    EXPECT_LT(Seconds(Clock::now() - begin).count(), 50) << "it waited for the lost one";
    EXPECT_NE(std::string(status.message()).find("rank 2 does not answer"), std::string::npos)
        << rank << ": " << status.message();
    EXPECT_EQ(status.peer(), 2);
  });
}

TEST(AbortingRank, ThatIsLeftOutDoesNotDisturbADerivation) {
  const auto knobs = knobs_with({});
  for (const int delay_ms : {0, 1, 3, 10}) {
    ThreadGroup group(5, knobs);
    ASSERT_OK(group.joined());
    run_ranks(5, [&](int rank) {
      if (rank == 1) {
        ::usleep(static_cast<useconds_t>(1000 * delay_ms));
        group[1].raise(News::kAbort, error(Code::kRemote, "rank 1 has had enough"));
        return;
      }
      if (rank == 0) ::usleep(5000);  // so that others wait
      const std::vector<int> members = {0, 2, 3, 4};
      auto derived = group[rank].derive(members, 1, knobs, nullptr);
      EXPECT_OK(derived.status());
      if (derived) {
        EXPECT_OK((*derived)->barrier());
      }
    });
  }
}

TEST(DifferentExchanges, AreNamedToAll) {
  ThreadGroup group(4, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(4, [&](int rank) {
    const Status status =
        rank == 3 ? group[rank].all_gather_text("text").status() : group[rank].barrier();
    EXPECT_EQ(status.code(), Code::kInvalidUsage) << status.message();
    EXPECT_EQ(status.peer(), 3);
  });
}

void expect_mentions(const Status& status, const std::vector<std::string>& texts) {
  EXPECT_EQ(status.code(), Code::kInvalidUsage);
  for (const std::string& text : texts)
    EXPECT_NE(status.message().find(text), std::string::npos) << status.to_string();
}

// Though they exchange as many bytes.
TEST(DifferentExchanges, OfTheUsersCallsAreNamedByThem) {
  ThreadGroup group(3, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(3, [&](int rank) {
    uint64_t blocks[3] = {};
    const Status status = group[rank].all_gather(
        blocks, sizeof blocks[0], nullptr, rank == 2 ? SetupCall::kSplit : SetupCall::kWindow);
    expect_mentions(status, {"rank 2", "commSplit", "commWindowRegister", "the same calls"});
    EXPECT_EQ(status.peer(), 2);
    const Status later = group[rank].barrier();
    expect_mentions(later, {"an earlier set-up call", "rank 2", "commSplit"});
  });
}

TEST(Revoke, EndsTheExchangesOfWindowsAndLeavesDerivationWorking) {
  auto knobs = knobs_with({});
  ThreadGroup group(4, knobs);
  ASSERT_OK(group.joined());
  run_ranks(4, [&](int rank) {
    if (rank == 1) {
      ::usleep(50'000);
      group[rank].raise(News::kRevoke, error(Code::kInvalidUsage, "revoked"));
    } else {
      uint64_t blocks[4] = {};
      const Status status =
          group[rank].all_gather(blocks, sizeof blocks[0], nullptr, SetupCall::kWindow);
      expect_mentions(status, {"revoked"});
      EXPECT_EQ(status.peer(), 1);
    }
    const std::vector<int> all = {0, 1, 2, 3};
    auto derived = group[rank].derive(all, 1, knobs, nullptr);
    EXPECT_OK(derived.status());
    if (derived) {
      EXPECT_OK((*derived)->barrier());
    }
  });
}

TEST(Fork, ChildMayDropAGroupWithoutDisturbingTheParent) {
  ThreadGroup group(3, knobs_with({}));
  ASSERT_OK(group.joined());
  const pid_t child = ::fork();
  if (child == 0) {
    group.ranks.clear();
    ::_exit(0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  run_ranks(3, [&](int rank) { EXPECT_OK(group[rank].barrier()); });
  for (const auto& news : group.news) EXPECT_EQ(news->count(), 0u);
}

}  // namespace
}  // namespace libcomm::testing
