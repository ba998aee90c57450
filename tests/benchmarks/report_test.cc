// The table as scripts for nccl-tests read it, and the JSON.
#include "benchmarks/harness/report.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "benchmarks/harness/json.h"
#include "tests/benchmarks/json_check.h"

namespace bench {
namespace {

// A FILE that writes into a string.
class Sink {
 public:
  Sink() : file_(open_memstream(&data_, &size_)) {}
  ~Sink() {
    std::fclose(file_);
    std::free(data_);
  }
  FILE* file() { return file_; }
  std::string text() {
    std::fflush(file_);
    return {data_, size_};
  }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  FILE* file_;
};

RunInfo two_ranks() {
  RunInfo info;
  info.procs = 2;
  info.api_level = 22809;
  info.library_version = "0.1.0";
  info.ranks = {describe_this_process(0, -1), describe_this_process(1, -1)};
  return info;
}

Row all_reduce_row() {
  Row row;
  row.bytes = 1048576;
  row.count = 262144;
  row.type = "float";
  row.redop = "sum";
  row.root = -1;
  row.iterations = 20;
  row.out_of_place = {57.591, 18.2071, 18.2071, 0};
  row.in_place = Measurement{1234.56, 0.849355, 0.849355, 3};
  return row;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class Table : public testing::Test {
 protected:
  Options options_;
  Sink table_;
  Sink progress_;
  Report report_{"all_reduce_perf",
                 options_,
                 {"all_reduce_perf", "-b", "8\"\n"},
                 table_.file(),
                 progress_.file()};
};

TEST_F(Table, HasNcclTestsHeaderLines) {
  report_.header(two_ranks());
  const std::string text = table_.text();
  EXPECT_NE(
      text.find("#       size         count      type   redop    root     time   algbw   busbw "
                "#wrong     time   algbw   busbw #wrong"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("#        (B)    (elements)                               (us)  (GB/s)  "
                      "(GB/s)            (us)  (GB/s)  (GB/s)"),
            std::string::npos);
  EXPECT_NE(text.find("out-of-place                       in-place"), std::string::npos);
  EXPECT_NE(
      text.find("# nThread 1 nGpus 1 minBytes 33554432 maxBytes 33554432 step: 1048576(bytes) "
                "warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0"),
      std::string::npos);
}

TEST_F(Table, NamesEveryRankAsNcclTestsDoes) {
  report_.header(two_ranks());
  std::vector<int> ranks;
  for (const std::string& line : lines_of(table_.text())) {
    int rank, group, pid, device;
    char host[64], kind[64], model[64];
    // The format that nccl-tests itself reads these lines with.
    if (std::sscanf(line.c_str(), "#  Rank %d Group %d Pid %d on %63s device %d [%63[^]]] %63[^\n]",
                    &rank, &group, &pid, host, &device, kind, model) == 7) {
      EXPECT_EQ(device, -1);
      EXPECT_STREQ(kind, "cpu");
      ranks.push_back(rank);
    }
  }
  EXPECT_EQ(ranks, (std::vector<int>{0, 1})) << table_.text();
}

TEST_F(Table, RowsHaveThirteenColumnsAtTheirPlaces) {
  report_.header(two_ranks());
  report_.row(all_reduce_row());
  const std::vector<std::string> lines = lines_of(table_.text());
  EXPECT_EQ(lines.back(),
            "     1048576        262144     float     sum      -1    57.59   18.21   18.21      0  "
            "1234.56    0.85    0.85      3");
  // Titles and values end in the same column.
  for (const std::string& title : lines) {
    if (title.find("algbw") == std::string::npos) continue;
    EXPECT_EQ(title.find("count") + 5, lines.back().find("262144") + 6);
    EXPECT_EQ(title.find("time") + 4, lines.back().find("57.59") + 5);
    EXPECT_EQ(title.find("#wrong") + 6, lines.back().find("18.21      0") + 12);
    EXPECT_EQ(title.rfind("#wrong") + 6, lines.back().size());
  }
}

TEST_F(Table, ARowWithoutAnInPlaceFormStillHasThirteenColumnsOfNumbers) {
  Row row = all_reduce_row();
  row.in_place.reset();
  report_.row(row);
  const std::vector<std::string> words = words_of(table_.text());
  ASSERT_EQ(words.size(), 13u);
  for (const size_t column : {9, 10, 11}) EXPECT_EQ(words[column], "0.00");
  EXPECT_EQ(words[12], "N/A");
}

TEST_F(Table, AnUncheckedRowSaysSo) {
  Row row = all_reduce_row();
  row.out_of_place.wrong.reset();
  report_.row(row);
  EXPECT_EQ(words_of(table_.text())[8], "N/A");
}

TEST_F(Table, EndsWithTheLinesThatScriptsGrepFor) {
  report_.row(all_reduce_row());
  report_.footer(3);
  const std::string text = table_.text();
  EXPECT_NE(text.find("\n# Out of bounds values : 3 FAILED\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n# Avg bus bandwidth    : 9.52823 \n#\n"), std::string::npos) << text;

  Sink clean;
  Report good("all_reduce_perf", options_, {}, clean.file(), nullptr);
  good.footer(0);
  EXPECT_NE(clean.text().find("# Out of bounds values : 0 OK\n"), std::string::npos);
}

TEST_F(Table, ProgressGoesToTheTerminalAndIsWipedBeforeARow) {
  report_.progress(3, 12, 1048576, "float", "sum");
  EXPECT_EQ(table_.text(), "");
  EXPECT_EQ(progress_.text(), "\r[4/12] 1048576 bytes, float sum ...\033[K");
  report_.row(all_reduce_row());
  EXPECT_EQ(progress_.text(), "\r[4/12] 1048576 bytes, float sum ...\033[K\r\033[K");
}

TEST_F(Table, JsonIsValidAndHoldsTheRows) {
  report_.header(two_ranks());
  Row row = all_reduce_row();
  report_.row(row);
  row.in_place.reset();
  row.out_of_place.wrong.reset();
  report_.row(row);
  report_.footer(3);
  const std::string json = report_.json();
  EXPECT_EQ(json_error(json), "") << json;
  for (const char* part :
       {R"("args":["all_reduce_perf","-b","8\"\u000a"])", R"("comm_version":22809)", R"("procs":2)",
        R"("minimum_bytes":33554432)", R"("rank":1)", R"("size":1048576)",
        R"("count":262144,"type":"float","redop":"sum","root":-1,"iterations":20)",
        R"("out_of_place":{"time":57.591,"alg_bw":18.2071,"bus_bw":18.2071,"nwrong":0})",
        R"("nwrong":3)", R"("nwrong":null},"in_place":null)",
        R"("out_of_bounds":{"count":3,"okay":false})"}) {
    EXPECT_NE(json.find(part), std::string::npos) << part << "\nin\n" << json;
  }
}

TEST_F(Table, JsonThatCannotBeWrittenIsNamed) {
  testing::internal::CaptureStderr();
  EXPECT_FALSE(report_.write_json("/nowhere/at/all.json"));
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("/nowhere/at/all.json: No such file or directory"), std::string::npos)
      << text;
}

TEST(JsonWriter, EscapesWhatJsonCannotHold) {
  JsonWriter json;
  json.begin_array().value("a\"b\\c\x01\xff\t").value(0.0 / 0.0).value(1.5).value(true);
  json.value(uint64_t{18446744073709551615u}).begin_object().end_object().end_array();
  EXPECT_EQ(json.text(), R"(["a\"b\\c\u0001\u00ff\u0009",null,1.5,true,18446744073709551615,{}])");
  EXPECT_EQ(json_error(json.text()), "");
}

TEST(JsonCheck, RejectsWhatIsNotJson) {
  for (const char* bad : {"", "{", "{\"a\":}", "[1,]", "{\"a\":1,}", "nan", "[1] 2", "\"\n\""}) {
    EXPECT_NE(json_error(bad), "") << bad;
  }
}

TEST(FitNumber, KeepsItsWidthByDroppingDecimals) {
  EXPECT_EQ(fit_number(0.0, 7), "   0.00");
  EXPECT_EQ(fit_number(9999.99, 7), "9999.99");
  EXPECT_EQ(fit_number(12345.67, 7), "12345.7");
  EXPECT_EQ(fit_number(123456.7, 7), " 123457");
  EXPECT_EQ(fit_number(9999999.0, 7), "9999999");
  EXPECT_EQ(fit_number(123456789.0, 7), "1.2e+08");
  EXPECT_EQ(fit_number(1234567.0, 6), " 1e+06");
}

}  // namespace
}  // namespace bench
