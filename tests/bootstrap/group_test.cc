// Groups that assemble and exchange, ranks as threads.
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <numeric>

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

}  // namespace
}  // namespace libcomm::testing
