// Tuning tables: what they may hold, which row counts, and what is said of one that is wrong.
#include "src/plan/tuning_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/base/temp_folder.h"

namespace libcomm::test {
namespace {

using testing::HasSubstr;

const std::string kTitle = "libcomm tuning table 1: a machine\n";

TuningTable good(const std::string& rows) {
  auto table = TuningTable::parse(kTitle + rows, "FILE");
  EXPECT_TRUE(table.is_ok()) << table.status().message();
  return table ? *table : TuningTable();
}

std::string refusal(const std::string& text) {
  const auto table = TuningTable::parse(text, "FILE");
  EXPECT_FALSE(table.is_ok()) << text;
  if (table) return "";
  EXPECT_EQ(table.status().code(), Code::kInvalidArgument);
  return table.status().message();
}

std::string refusal_of_row(const std::string& row) { return refusal(kTitle + row + "\n"); }

TEST(TuningTable, ReadsRowsCommentsAndSizes) {
  const TuningTable table = good(
      "# what follows is one row\n\n"
      "  allreduce , 0,64K, 2, 1, memory , twoshot, *, 128K, 12.5  \r\n");
  EXPECT_EQ(table.machine(), "a machine");
  ASSERT_EQ(table.rows().size(), 1U);
  const TuningRow& row = table.rows()[0];
  EXPECT_EQ(row.collective, Collective::kAllReduce);
  EXPECT_EQ(row.min_bytes, 0U);
  EXPECT_EQ(row.max_bytes, 65536U);
  EXPECT_EQ(row.nranks, 2);
  EXPECT_EQ(row.hosts, 1);
  EXPECT_EQ(row.medium, Medium::kMemory);
  EXPECT_EQ(row.way, Way::kTwoshot);
  EXPECT_EQ(row.lanes, 0);
  EXPECT_EQ(row.window, 131072U);
  EXPECT_EQ(row.microseconds, 12.5);
  EXPECT_EQ(table.place_of(row), "FILE, line 4");
}

TEST(TuningTable, TheFirstRowThatFitsCounts) {
  const TuningTable table = good(
      "allreduce, 100, 200, 4, *, *, hd, *, *, *\n"
      "allreduce, 0, *, *, 1, sockets, ring, 2, *, *\n"
      "allreduce, 0, *, *, *, *, rd, *, *, *\n");
  const auto way = [&](size_t bytes, int nranks, int hosts, Medium medium) {
    return name_of(table.find({Collective::kAllReduce, bytes, nranks, hosts, medium})->way);
  };
  EXPECT_STREQ(way(100, 4, 1, Medium::kSockets), "hd");
  EXPECT_STREQ(way(200, 4, 2, Medium::kNetwork), "hd");
  EXPECT_STREQ(way(99, 4, 1, Medium::kSockets), "ring");
  EXPECT_STREQ(way(201, 4, 1, Medium::kSockets), "ring");
  EXPECT_STREQ(way(150, 5, 1, Medium::kSockets), "ring");
  EXPECT_STREQ(way(99, 4, 1, Medium::kMemory), "rd");
  EXPECT_STREQ(way(99, 4, 2, Medium::kSockets), "rd");
  EXPECT_EQ(table.find({Collective::kReduce, 8, 4, 1, Medium::kMemory}), nullptr);
}

TEST(TuningTable, WritesWhatItReads) {
  const TuningTable table = good(
      "allgather, 1, 4096, 4, 2, network, ring, 4, *, 33.25\n"
      "alltoallv, 0, *, *, *, *, pairwise, *, *, *\n"
      "broadcast, 8, 8, 2, *, memory, windows, *, 262144, 0\n");
  const auto again = TuningTable::parse(table.to_text(), "AGAIN");
  ASSERT_TRUE(again.is_ok()) << again.status().message();
  EXPECT_EQ(again->to_text(), table.to_text());
  EXPECT_EQ(again->rows().size(), 3U);
}

TEST(TuningTable, NamesTheLineAndTheRemedy) {
  EXPECT_THAT(refusal(""), HasSubstr("FILE, line 1: '': expected 'libcomm tuning table 1: "));
  EXPECT_THAT(refusal("\x7f"
                      "ELF\x01\x02\n"),
              HasSubstr("line 1: it holds a control character"));
  EXPECT_THAT(refusal("libcomm tuning table 7: later\n"), HasSubstr("reads version 1: run its"));
  EXPECT_THAT(refusal(kTitle + "\nallreduce, 1, 2\n"), HasSubstr("FILE, line 3: 3 fields"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, *, *, ring, *, *, *, *"), HasSubstr("11 fields"));
  EXPECT_THAT(refusal_of_row("allreduse, 0, *, *, *, *, ring, *, *, *"),
              HasSubstr("collective 'allreduse' is not one of: allreduce, "));
  EXPECT_THAT(refusal_of_row("sendrecv, 0, *, *, *, *, ring, *, *, *"), HasSubstr("'sendrecv'"));
  EXPECT_THAT(refusal_of_row("allreduce, -1, *, *, *, *, ring, *, *, *"),
              HasSubstr("least bytes '-1': expected a size such as"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, lots, *, *, *, ring, *, *, *"),
              HasSubstr("most bytes 'lots'"));
  EXPECT_THAT(refusal_of_row("allreduce, 9, 8, *, *, *, ring, *, *, *"),
              HasSubstr("least bytes 9 are more than most bytes 8"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, 0, *, *, ring, *, *, *"),
              HasSubstr("ranks '0': expected a number from 1 to"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, 1x, *, ring, *, *, *"), HasSubstr("hosts '1x'"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, *, pigeon, ring, *, *, *"),
              HasSubstr("path 'pigeon' is not one of: memory, sockets, network, *"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, *, *, zigzag, *, *, *"),
              HasSubstr("algorithm 'zigzag' is not one of: oneshot, "));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, *, *, ring, 17, *, *"), HasSubstr("lanes '17'"));
  EXPECT_THAT(refusal_of_row("allreduce, 0, *, *, *, *, twoshot, *, 1K, *"),
              HasSubstr("window '1K': expected a size from 4096 to 67108864"));
  for (const char* us : {"-1", "nan", "inf", "1e999", "fast"})
    EXPECT_THAT(refusal_of_row(std::string("allreduce, 0, *, *, *, *, ring, *, *, ") + us),
                HasSubstr("microseconds '"))
        << us;
}

TEST(TuningTable, HasItsLimits) {
  EXPECT_THAT(refusal(kTitle + std::string(kMostTableBytes, '\n')), HasSubstr("has at most"));
  std::string rows;
  for (size_t i = 0; i <= kMostTableRows; ++i) rows += "barrier,0,*,*,*,*,rd,*,*,*\n";
  EXPECT_THAT(refusal(kTitle + rows), HasSubstr("has at most 16384 rows"));
}

TEST(TuningTable, FilesThatCannotBeReadAreNamed) {
  const TempFolder folder;
  const auto refusal_of_file = [](const std::string& path) {
    const auto text = read_table_file(path, "COMM_TUNER_FILE=" + path);
    EXPECT_FALSE(text.is_ok());
    return text ? "" : text.status().message();
  };
  EXPECT_THAT(refusal_of_file(folder / "missing"), HasSubstr("missing: No such file"));
  EXPECT_THAT(refusal_of_file(folder.path()), HasSubstr("it is no plain file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal_of_file(folder / "pipe"), HasSubstr("it is no plain file"));
  write_file(folder / "long", std::string(kMostTableBytes + 1, '#'));
  EXPECT_THAT(refusal_of_file(folder / "long"), HasSubstr("it has more than the 1048576 bytes"));
}

}  // namespace
}  // namespace libcomm::test
