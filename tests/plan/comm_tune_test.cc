// comm-tune as users run it: it measures, prints, and writes a table that COMM_TUNER_FILE loads;
// and what its table holds for given measurements.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/base/temp_folder.h"
#include "tools/tune/report.h"

namespace libcomm::tune {
namespace {

using test::read_file;
using test::TempFolder;
using testing::HasSubstr;

struct Outcome {
  int status = -1;
  std::string text;  // stdout and stderr
};

Outcome run(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Outcome outcome;
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof buffer, pipe)) outcome.text.append(buffer, got);
  outcome.status = WEXITSTATUS(pclose(pipe));
  return outcome;
}

Outcome comm_tune(const std::string& options) { return run(COMM_TUNE " " + options); }

TEST(CommTune, WritesATableThatTheLibraryLoads) {
  const TempFolder folder;
  const std::string path = folder / "table";
  const Outcome tuned = comm_tune(
      "--quick --collectives allreduce,scatter --ranks 2,3 --min 64 --max 4K --rounds 1 --output " +
      path);
  ASSERT_EQ(tuned.status, 0) << tuned.text;
  EXPECT_THAT(tuned.text, HasSubstr("of 24 differ from what the cost model chooses"));
  EXPECT_THAT(tuned.text, HasSubstr("24 rows in " + path + "; COMM_TUNER_FILE=" + path));
  const auto table = TuningTable::parse(read_file(path), path);
  ASSERT_TRUE(table.is_ok()) << table.status().message();
  EXPECT_THAT(table->machine(), HasSubstr(" cores, Linux "));
  for (const int nranks : {2, 3})
    for (const Medium medium : {Medium::kMemory, Medium::kSockets})
      for (const size_t bytes : {size_t{0}, size_t{64}, size_t{65}, size_t{1} << 40}) {
        const TuningRow* row = table->find({Collective::kScatter, bytes, nranks, 1, medium});
        ASSERT_NE(row, nullptr) << nranks << ' ' << bytes;
        EXPECT_GT(row->microseconds, 0);
      }
  const Outcome used = run("COMM_TUNER_FILE=" + path +
                           " COMM_DEBUG=INFO COMM_DEBUG_SUBSYS=TUNING " COMM_TUNE
                           " --collectives allreduce --output " +
                           (folder / "again"));
  EXPECT_EQ(used.status, 1);
  EXPECT_THAT(used.text, HasSubstr("decides algorithms, which is what is measured; unset it"));
}

TEST(CommTune, VerboseNamesEveryAlgorithm) {
  const TempFolder folder;
  const Outcome tuned = comm_tune(
      "--verbose --collectives allgather --transports shm --ranks 2 --min 64 --max 64 --rounds 1 "
      "--output " +
      (folder / "table"));
  ASSERT_EQ(tuned.status, 0) << tuned.text;
  for (const char* way : {"oneshot ", "windows ", "ring ", "hd ", "bruck "})
    EXPECT_THAT(tuned.text, HasSubstr(way));
}

TEST(CommTune, RefusesWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {"--slow", "unknown option '--slow'; comm-tune --help lists them"},
      {"--ranks", "--ranks needs a value"},
      {"--ranks 1", "--ranks 1: expected a number from 2 to 64"},
      {"--ranks 2,,3", "--ranks : expected a number"},
      {"--collectives allreduce,sum", "'sum' is not one of: allreduce, "},
      {"--collectives barrier", "'barrier' is not one of"},
      {"--transports rdma", "'rdma' is not one of: shm, tcp"},
      {"--min 1M --max 1K", "--min 1048576 is more than --max 1024"},
      {"--max 1T", "expected a size from 4 to 4G"},
      {"--factor 1", "--factor 1: expected a number from 2 to 1024"},
      {"--output ''", "--output: the name is empty"},
      {"--output 'two\nlines'", "--output: the name has a line break or another control character"},
      {"--output '\x7f'", "--output: the name has a line break or another control character"},
  };
  for (const auto& [options, said] : cases) {
    const Outcome o = comm_tune(options);
    EXPECT_EQ(o.status, 2) << options;
    EXPECT_THAT(o.text, HasSubstr(said)) << options;
  }
}

TEST(CommTune, SaysWhenTheTableCannotBeWritten) {
  const Outcome o = comm_tune(
      "--quick --collectives gather --transports shm --ranks 2 --max 64 --output /nowhere/table");
  EXPECT_EQ(o.status, 1);
  EXPECT_THAT(o.text, HasSubstr("writing /nowhere/table: No such file"));
}

Measurement measurement(size_t bytes, Way model, std::vector<Timing> timings) {
  Measurement one;
  one.key = {Collective::kAllReduce, bytes, 2, 1, Medium::kMemory};
  one.by_model = {model, 0, 0};
  one.timings = std::move(timings);
  return one;
}

TEST(TuneReport, KeepsTheModelsChoiceUnlessSomethingIsClearlyFaster) {
  const auto with = [](double oneshot, double twoshot) {
    return measurement(8, Way::kOneshot,
                       {{{Way::kOneshot, 0, 0}, oneshot, 1}, {{Way::kTwoshot, 0, 0}, twoshot, 1}});
  };
  EXPECT_EQ(best_of(with(1.0, 2.0)).variant.way, Way::kOneshot);
  EXPECT_EQ(best_of(with(1.03, 1.0)).variant.way, Way::kOneshot);
  EXPECT_EQ(best_of(with(1.10, 1.0)).variant.way, Way::kTwoshot);
}

TEST(TuneReport, ARowReachesFromTheSizeBeforeAndTheLastToAll) {
  std::vector<Measurement> all = {
      measurement(8, Way::kOneshot, {{{Way::kOneshot, 0, 0}, 1, 1}}),
      measurement(64, Way::kOneshot, {{{Way::kRing, 2, 0}, 5, 1}, {{Way::kOneshot, 0, 0}, 9, 1}}),
      measurement(512, Way::kTwoshot, {{{Way::kTwoshot, 0, 65536}, 7, 1}}),
      measurement(8, Way::kOneshot, {{{Way::kOneshot, 0, 0}, 1, 1}})};
  all[3].key.nranks = 4;
  const TuningTable table = make_table(all, "a machine");
  ASSERT_EQ(table.rows().size(), 4U);
  const auto& rows = table.rows();
  EXPECT_EQ(rows[0].min_bytes, 0U);
  EXPECT_EQ(rows[0].max_bytes, 8U);
  EXPECT_EQ(rows[1].min_bytes, 9U);
  EXPECT_EQ(rows[1].max_bytes, 64U);
  EXPECT_EQ(rows[1].way, Way::kRing);
  EXPECT_EQ(rows[1].lanes, 2);
  EXPECT_EQ(rows[1].microseconds, 5);
  EXPECT_EQ(rows[2].max_bytes, SIZE_MAX);
  EXPECT_EQ(rows[2].window, 65536U);
  EXPECT_EQ(rows[3].min_bytes, 0U);
  EXPECT_EQ(rows[3].nranks, 4);
  const std::string text = report(all, false);
  EXPECT_THAT(text, HasSubstr("ring, 2 lanes"));
  EXPECT_THAT(text, HasSubstr("1.80x"));
  EXPECT_THAT(text, HasSubstr("2 of 4 differ"));
}

TEST(TuneReport, MeasurementsTravelAsText) {
  const std::vector<Measurement> all = {measurement(
      64, Way::kOneshot, {{{Way::kRing, 2, 0}, 5.5, 1}, {{Way::kTwoshot, 0, 4096}, 9, 2}})};
  const std::string text = write_measurements(all);
  const auto again = read_measurements(text);
  ASSERT_TRUE(again.is_ok()) << again.status().message();
  ASSERT_EQ(again->size(), 1U);
  EXPECT_EQ(write_measurements(*again), text);
  EXPECT_FALSE(read_measurements(text.substr(0, text.size() - 5)).is_ok());
}

}  // namespace
}  // namespace libcomm::tune
