// The checker is only worth something if it refuses what is wrong.
#include <gtest/gtest.h>

#include "algorithms/registry.h"
#include "src/schedule/checker.h"
#include "src/schedule/mutate.h"
#include "tools/schedule_suite.h"

namespace libcomm {
namespace {

TEST(Mutations, OfEveryAlgorithmAreAllRejected) {
  for (const Algorithm& algorithm : algorithms()) {
    const MutationReport report = try_mutations(100, 7, algorithm.name);
    EXPECT_EQ(report.made, 100) << algorithm.name;
    for (const std::string& survivor : report.survivors) ADD_FAILURE() << survivor;
  }
}

// Otherwise the test above would prove nothing about it.
TEST(Mutations, OfEveryKindCanBeMade) {
  for (int kind = 0; kind < static_cast<int>(Mutation::kCount); ++kind) {
    int made = 0;
    for (const ScheduleCase& item : schedule_cases(5)) {
      std::vector<Schedule> ranks = build_all(*item.algorithm, item.request);
      std::string what;
      made += mutate(&ranks, static_cast<Mutation>(kind), 3, &what);
    }
    EXPECT_GE(made, 5) << name_of(static_cast<Mutation>(kind));
  }
}

TEST(Mutations, AreTheSameForTheSameSeed) {
  const ScheduleCase item = schedule_cases(6, "ring").front();
  std::string first;
  std::string second;
  for (std::string* what : {&first, &second}) {
    std::vector<Schedule> ranks = build_all(*item.algorithm, item.request);
    ASSERT_TRUE(mutate(&ranks, Mutation::kWrongChunk, 42, what));
  }
  EXPECT_EQ(first, second);
}

}  // namespace
}  // namespace libcomm
