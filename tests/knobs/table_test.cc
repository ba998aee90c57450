// The table of knobs as a whole: every row has tests of its effect, ranks agree where they must,
// and settings come from ~/.comm.conf too.
#include <gtest/gtest.h>

#include <set>

#include "tests/knobs/looking.h"

namespace knobs {
namespace {

// The names in src/base/knobs.def: the second argument of each KNOB.
std::set<std::string> names_in_table() {
  const std::string text = read_file(COMM_SOURCE_DIR "/src/base/knobs.def");
  std::set<std::string> names;
  for (size_t at = text.find("\nKNOB("); at != std::string::npos;
       at = text.find("\nKNOB(", at + 1)) {
    const size_t begin = text.find('"', at) + 1;
    names.insert(text.substr(begin, text.find('"', begin) - begin));
  }
  return names;
}

TEST(Table, HasATestOfTheEffectOfEveryKnob) {
  std::set<std::string> suites;
  const auto& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) suites.insert(all.GetTestSuite(i)->name());
  suites.erase("Table");
  EXPECT_EQ(suites, names_in_table());
}

TEST(Table, AgreedKnobsFollowRankZeroAndSaySo) {
  const Folder folder;
  Launch start;
  start.settings = [&](int rank) {
    return Environment{{"COMM_DEBUG", "WARN"},
                       {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))},
                       {"COMM_ALGO", "ring"},
                       {"COMM_SINGLE_RING_THRESHOLD", "0"},
                       {"COMM_MIN_NRINGS", rank == 0 ? "2" : "5"}};
  };
  launch(start, [](Rank& rank) {
    std::vector<float> data(1000, 1.0F);
    sum(rank, data);
    rank.expect(data[0] == 2, "a wrong sum");
    // One channel to and one from the other rank on each of two lanes.
    rank.expect(stats_of(rank).channels == 4,
                "channels: " + std::to_string(stats_of(rank).channels));
  });
  EXPECT_EQ(read_file(folder / "log0"), "");
  const std::string log = read_file(folder / "log1");
  EXPECT_TRUE(contains(log, "COMM_MIN_NRINGS differ from rank 0's")) << log;
  EXPECT_FALSE(contains(log, "COMM_ALGO")) << log;
}

TEST(Table, IsAlsoReadFromTheHomeFolder) {
  const Folder folder;
  write_file(folder / ".comm.conf", "ALGO = ring\nLL_THRESHOLD=0\n");
  EXPECT_TRUE(contains(look({{"HOME", folder / ""}}).log, ": ring"));
  // The environment is stronger.
  EXPECT_TRUE(contains(look({{"HOME", folder / ""}, {"COMM_ALGO", "rd"}}).log, ": rd"));
}

}  // namespace
}  // namespace knobs
