// Groups that assemble and exchange, ranks as threads.
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "src/base/clock.h"
#include "tests/bootstrap/support.h"

namespace libcomm::testing {
namespace {

class GroupOf : public ::testing::TestWithParam<int> {};

TEST_P(GroupOf, GathersEveryRanksBlockInRankOrder) {
  const int n = GetParam();
  ThreadGroup group(n, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(n, [&](int rank) {
    for (int round = 0; round < 3; ++round) {
      std::vector<int> data(static_cast<size_t>(n), -1);
      data[static_cast<size_t>(rank)] = rank * 10 + round;
      EXPECT_OK(group[rank].all_gather(data.data(), sizeof(int)));
      for (int r = 0; r < n; ++r) EXPECT_EQ(data[static_cast<size_t>(r)], r * 10 + round);
      EXPECT_OK(group[rank].barrier());
    }
    auto texts = group[rank].all_gather_text(std::string(static_cast<size_t>(rank), 'x'));
    ASSERT_OK(texts.status());
    for (int r = 0; r < n; ++r)
      EXPECT_EQ((*texts)[static_cast<size_t>(r)].size(), static_cast<size_t>(r));
    EXPECT_EQ(group[rank].rank(), rank);
    EXPECT_EQ(group[rank].nranks(), n);
  });
  for (const auto& news : group.news) EXPECT_EQ(news->count(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Sizes, GroupOf, ::testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 64));

TEST(Group, OfTwoHundredAndFiftySixThreadsAssembles) {
  ThreadGroup group(256, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(256, [&](int rank) { EXPECT_OK(group[rank].barrier()); });
}

TEST(Group, GathersLargeTexts) {
  ThreadGroup group(3, knobs_with({}));
  ASSERT_OK(group.joined());
  run_ranks(3, [&](int rank) {
    const std::string mine(static_cast<size_t>(3 << 20), static_cast<char>('a' + rank));
    auto texts = group[rank].all_gather_text(mine);
    ASSERT_OK(texts.status());
    for (int r = 0; r < 3; ++r)
      EXPECT_EQ((*texts)[static_cast<size_t>(r)], std::string(3 << 20, static_cast<char>('a' + r)));
  });
}

TEST(Group, OfSeveralIdsUsesAllOfThemAndIsOneGroup) {
  for (size_t ids : {2u, 3u, 7u}) {
    ThreadGroup group(7, knobs_with({}), ids);
    ASSERT_OK(group.joined());
    run_ranks(7, [&](int rank) {
      std::vector<int> data(7, -1);
      data[static_cast<size_t>(rank)] = rank;
      EXPECT_OK(group[rank].all_gather(data.data(), sizeof(int)));
      for (int r = 0; r < 7; ++r) EXPECT_EQ(data[static_cast<size_t>(r)], r);
    });
  }
}

TEST(Group, ConnectsPeersThatAreNotInACall) {
  ThreadGroup group(3, knobs_with({}));
  ASSERT_OK(group.joined());
  EXPECT_FALSE(group[1].try_accept(2, Purpose::kTest, 5)->valid());
  auto there = group[2].connect(1, Purpose::kTest, 5);
  ASSERT_OK(there.status());
  UniqueFd here;
  while (!here) here = *group[1].try_accept(2, Purpose::kTest, 5);
  ASSERT_EQ(::write(there->get(), "hello", 5), 5);
  pollfd ready = {here.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 20000), 1);
  char text[8] = "";
  EXPECT_EQ(::read(here.get(), text, sizeof text), 5);
  EXPECT_STREQ(text, "hello");
  // Nothing for other peers, purposes or indices.
  EXPECT_FALSE(group[1].try_accept(0, Purpose::kTest, 5)->valid());
  EXPECT_FALSE(group[1].try_accept(2, Purpose::kShmSetup, 5)->valid());
  EXPECT_FALSE(group[1].try_accept(2, Purpose::kTest, 6)->valid());
  EXPECT_EQ(group[1].connect(1, Purpose::kTest, 0).status().code(), Code::kInvalidArgument);
}

TEST(Group, DerivesGroupsThatExcludeOthersAndSurviveTheParent) {
  auto knobs = knobs_with({});
  auto parent = std::make_unique<ThreadGroup>(6, knobs);
  ASSERT_OK(parent->joined());
  const std::vector<int> members = {4, 1, 3, 0};
  std::vector<std::unique_ptr<Bootstrap>> derived(4), again(4);
  NewsLog news;
  run_ranks(4, [&](int rank) {
    const auto at = static_cast<size_t>(rank);
    auto first = (*parent)[members[at]].derive(members, 1, knobs, news.callback());
    ASSERT_OK(first.status());
    derived[at] = *std::move(first);
    auto second = (*parent)[members[at]].derive(members, 2, knobs, news.callback());
    ASSERT_OK(second.status());
    again[at] = *std::move(second);
  });
  for (size_t at = 0; at < 4; ++at) {
    ASSERT_NE(derived[at], nullptr);
    EXPECT_EQ(derived[at]->rank(), static_cast<int>(at));
    EXPECT_TRUE(std::ranges::equal(derived[at]->secret(), derived[0]->secret()));
    EXPECT_FALSE(std::ranges::equal(derived[at]->secret(), again[at]->secret()));
    EXPECT_FALSE(std::ranges::equal(derived[at]->secret(), (*parent)[0].secret()));
  }
  parent.reset();
  run_ranks(4, [&](int rank) {
    const auto at = static_cast<size_t>(rank);
    auto texts = derived[at]->all_gather_text(std::to_string(members[at]));
    ASSERT_OK(texts.status());
    for (size_t r = 0; r < 4; ++r) EXPECT_EQ((*texts)[r], std::to_string(members[r]));
  });
  EXPECT_EQ(news.count(), 0u);
}

TEST(Group, RefusesToDeriveFromWrongMembers) {
  auto knobs = knobs_with({});
  ThreadGroup group(3, knobs);
  ASSERT_OK(group.joined());
  for (const std::vector<int>& members : {std::vector<int>{1, 2}, {0, 3}, {0, 0}, {-1, 0}, {}})
    EXPECT_EQ(group[0].derive(members, 1, knobs, nullptr).status().code(), Code::kInvalidArgument);
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

TEST(Group, LeavesNoDescriptorBehind) {
  { ThreadGroup warm_up(2, knobs_with({})); }
  { ThreadGroup reaps_the_root(2, knobs_with({})); }
  const size_t before = open_descriptors();
  for (int i = 0; i < 3; ++i) {
    ThreadGroup group(5, knobs_with({}));
    ASSERT_OK(group.joined());
  }
  // A root's thread may still be closing what it had, and only a later root takes away what one
  // that has ended leaves.
  const Deadline deadline = Deadline::after(Seconds(60));
  while (open_descriptors() > before && !deadline.passed()) {
    ::usleep(10000);
    if (open_descriptors() > before) ThreadGroup reaps_the_roots(2, knobs_with({}));
  }
  EXPECT_LE(open_descriptors(), before);
}

TEST(Group, OfOneRankHasNoThreadAndNoSocket) {
  ThreadGroup group(1, knobs_with({}));
  ASSERT_OK(group.joined());
  EXPECT_EQ(group[0].sockets(), 0);
  EXPECT_EQ(group[0].threads(), 0);
  NewsLog news;
  int value = 5;
  EXPECT_OK(group[0].all_gather(&value, sizeof value));
  group[0].raise(News::kAbort, error(Code::kSystem, "disk full"));
  EXPECT_EQ(group.news[0]->await(News::kAbort).peer(), 0);
  EXPECT_EQ(group[0].barrier().message(), "disk full");
}

TEST(Group, HasFewSocketsPerRankHoweverLarge) {
  ThreadGroup group(64, knobs_with({{"SOCKET_IFNAME", "lo"}, {"SOCKET_FAMILY", "AF_INET"}}));
  ASSERT_OK(group.joined());
  // A connection that its caller gave up and made again may still be there for a moment.
  const Deadline deadline = Deadline::after(Seconds(60));
  for (int rank = 0; rank < 64; ++rank) {
    while (group[rank].sockets() > 1 + 3 + 5 && !deadline.passed()) ::usleep(10000);
    EXPECT_LE(group[rank].sockets(), 1 + 3 + 5);
  }
}

TEST(Group, UsesIpv6WhenTold) {
  ThreadGroup group(3, knobs_with({{"SOCKET_IFNAME", "lo"}, {"SOCKET_FAMILY", "AF_INET6"}}));
  ASSERT_OK(group.joined());
  EXPECT_NE(group[0].where(1).find("[::1]:"), std::string::npos) << group[0].where(1);
  run_ranks(3, [&](int rank) { EXPECT_OK(group[rank].barrier()); });
}

}  // namespace
}  // namespace libcomm::testing
