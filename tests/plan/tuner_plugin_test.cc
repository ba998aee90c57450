// Tuner plug-ins: what they are asked, what becomes of their answers, and what of wrong ones.
#include "src/plan/tuner_plugin.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "src/base/log.h"
#include "tests/base/temp_folder.h"
#include "tests/plan/groups.h"

namespace libcomm::test {
namespace {

using testing::HasSubstr;

class PluginTest : public testing::Test {
 protected:
  PluginTest() : knobs_(knobs_with()) {
    configure_log(LogLevel::kInfo, static_cast<unsigned>(Subsys::kTuning), folder_ / "log");
  }
  ~PluginTest() override {
    unsetenv("TESTS_ODD_TUNER");
    configure_log(LogLevel::kWarn, ~0U, "");
  }
  Result<TuningTable> ask(const std::string& name, const GroupShape& shape) const {
    return ask_tuner_plugin(name, shape, Chooser(shape, knobs_, AlgorithmChoice(), {}));
  }
  // The odd plug-in's table when it misbehaves like this.
  TuningTable ask_odd(const char* how) {
    setenv("TESTS_ODD_TUNER", how, 1);
    const auto table = ask(ODD_TUNER, on_board(4));
    EXPECT_TRUE(table.is_ok()) << table.status().message();
    return table ? *table : TuningTable();
  }
  std::string log() const { return read_file(folder_ / "log"); }

  TempFolder folder_;
  std::shared_ptr<const Knobs> knobs_;
};

const TuningRow* row_for(const TuningTable& table, Collective collective, size_t bytes) {
  return table.find({collective, bytes, 4, 1, Medium::kMemory});
}

TEST_F(PluginTest, ItsAnswersBecomeRowsAtItsOwnThresholds) {
  const auto table = ask(SAMPLE_TUNER, on_board(4));
  ASSERT_TRUE(table.is_ok()) << table.status().message();
  EXPECT_EQ(table->source(), "tuner plug-in 'sample'");
  EXPECT_EQ(row_for(*table, Collective::kAllReduce, 1000), nullptr);
  for (const size_t bytes : {size_t{1001}, size_t{100000}}) {
    const TuningRow* row = row_for(*table, Collective::kAllReduce, bytes);
    ASSERT_NE(row, nullptr);
    EXPECT_EQ(row->way, Way::kRing);
    EXPECT_EQ(row->lanes, 0);
  }
  for (const size_t bytes : {size_t{100001}, size_t{1} << 50}) {
    const TuningRow* row = row_for(*table, Collective::kAllReduce, bytes);
    ASSERT_NE(row, nullptr);
    EXPECT_EQ(row->lanes, 2);
  }
  EXPECT_EQ(row_for(*table, Collective::kAllGather, 100000), nullptr);
  EXPECT_THAT(log(), HasSubstr("tuner plug-in: tuning 4 ranks on 1 hosts"));
  EXPECT_THAT(log(), HasSubstr("questions"));
  // What travels to the other ranks is what was said.
  EXPECT_TRUE(TuningTable::parse(table->to_text(), "AGAIN").is_ok());
}

TEST_F(PluginTest, WhatIsNotPossibleIsNotChosen) {
  // There is no tree of all-gathers, and broadcasts by tree exist everywhere.
  const TuningTable table = ask_odd("well");
  EXPECT_EQ(row_for(table, Collective::kBroadcast, 8)->way, Way::kTree);
  EXPECT_EQ(row_for(table, Collective::kAllReduce, 1 << 20)->way, Way::kRing);
}

TEST_F(PluginTest, LibrariesThatAreNoPluginsAreRefused) {
  const auto refusal = [&](const std::string& name) {
    const auto table = ask(name, on_board(2));
    EXPECT_FALSE(table.is_ok());
    if (table) return std::string();
    EXPECT_EQ(table.status().code(), Code::kInvalidArgument);
    return table.status().message();
  };
  EXPECT_THAT(refusal("/nowhere/tuner.so"), HasSubstr("COMM_TUNER_PLUGIN=/nowhere/tuner.so: "));
  EXPECT_THAT(refusal("nobodys"), HasSubstr("libcomm-tuner-nobodys.so"));
  EXPECT_THAT(refusal(NO_TUNER), HasSubstr("exports no commTunerPlugin_v1"));
  EXPECT_THAT(refusal(EMPTY_TUNER), HasSubstr("is NULL; all four must be set"));
}

TEST_F(PluginTest, ANameOfSeveralLinesBecomesOneLineThatFits) {
  const auto table = ask(LINES_TUNER, on_board(4));
  ASSERT_TRUE(table.is_ok()) << table.status().message();
  EXPECT_THAT(table->source(), testing::StartsWith("tuner plug-in 'two\\x0alines\\x09and a name"));
  EXPECT_LT(table->source().size(), 100u);
  setenv("TESTS_ODD_TUNER", "init", 1);
  const auto failed = ask(LINES_TUNER, on_board(4));
  ASSERT_FALSE(failed.is_ok());
  EXPECT_THAT(failed.status().message(), HasSubstr("init of 'two\\x0alines"));
  EXPECT_EQ(failed.status().message().find('\n'), std::string::npos);
}

TEST_F(PluginTest, AnInitThatFailsIsAnError) {
  setenv("TESTS_ODD_TUNER", "init", 1);
  const auto table = ask(ODD_TUNER, on_board(2));
  ASSERT_FALSE(table.is_ok());
  EXPECT_EQ(table.status().code(), Code::kSystem);
  EXPECT_THAT(table.status().message(), HasSubstr("init of 'odd' failed with result 3"));
  EXPECT_THAT(log(), HasSubstr("WARN tuner plug-in: no licence for today"));
}

TEST_F(PluginTest, NonsenseCostsTheCollectiveItsRowsAndIsSaidOnce) {
  const std::pair<const char*, const char*> cases[] = {
      {"error", "getCollInfo failed with result 2"},
      {"nan", "the cost of hd for"},
      {"lanes", "1000 lanes for"},
      {"window", "a window of 1 bytes"},
      {"through", "is less than"},
      {"endless", "more than 512 ranges"},
      {"none", "it leaves no algorithm"},
  };
  for (const auto& [how, said] : cases) {
    const TuningTable table = ask_odd(how);
    EXPECT_EQ(row_for(table, Collective::kAllReduce, 8), nullptr) << how;
    EXPECT_NE(row_for(table, Collective::kBroadcast, 8), nullptr) << how;
    EXPECT_THAT(log(), HasSubstr(said)) << how;
  }
  EXPECT_THAT(log(), HasSubstr("WARN tuner plug-in 'odd': allreduce: "));
}

TEST_F(PluginTest, ADestroyThatFailsIsAWarning) {
  EXPECT_NE(row_for(ask_odd("destroy"), Collective::kBroadcast, 8), nullptr);
  EXPECT_THAT(log(), HasSubstr("WARN tuner plug-in 'odd': destroy failed with result 3"));
}

}  // namespace
}  // namespace libcomm::test
