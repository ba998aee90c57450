// `comm-check rdma` on the test double: what it says of a host and of pairs of ranks, and how it
// says what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "tests/base/held_port.h"
#include "tools/rdma/pair_report.h"

namespace libcomm {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

struct Ran {
  int status = -1;
  std::string text;
};

Ran run(const std::string& command) {
  Ran ran;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return ran;
  std::array<char, 4096> buffer;
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    ran.text.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return ran;
}

// A shell command that runs comm-check on a fabric of this test's own.
std::string check_rdma(const std::string& variables, const std::string& arguments) {
  return "env HOME=/nonexistent LD_LIBRARY_PATH=" COMM_RDMA_DOUBLE " RDMA_DOUBLE_FABRIC=check" +
         std::to_string(::getpid()) + " " + variables + " " COMM_CHECK " rdma " + arguments +
         " 2>&1";
}

TEST(CommCheckRdma, ListsThePortAndMeasuresEveryPairOfTheRanksThatItStarts) {
  const Ran ran = run(check_rdma("", "--ranks 3 --count 4 --bytes 256K"));
  EXPECT_EQ(ran.status, 0) << ran.text;
  EXPECT_THAT(ran.text, ContainsRegex("double0:1 \\(Ethernet, RoCE v2 [0-9.]+, MTU 4096"));
  EXPECT_THAT(ran.text, ContainsRegex("GID 3 of 4.* 1024 queue pairs"));
  EXPECT_THAT(ran.text, HasSubstr("memlock"));
  EXPECT_THAT(ran.text, HasSubstr("GPUDirect"));
  for (const char* pair : {"\n +0 +1 +[0-9.]+ +[0-9.]+ +[0-9.]+\n", "\n +0 +2 +[0-9.]+ +[0-9.]+",
                           "\n +1 +2 +[0-9.]+ +[0-9.]+"})
    EXPECT_THAT(ran.text, ContainsRegex(pair));
  // Five messages of two segments of 128 KiB, all granted, none copied.
  EXPECT_THAT(ran.text, ContainsRegex("\n +2 +1 +1310720 +1310720 .* 10 +0\n"));
  EXPECT_THAT(ran.text, HasSubstr("RDMA works between all ranks"));
}

TEST(CommCheckRdma, WorksUnderALauncher) {
  const test::HeldPort port;
  const std::string variables = "COMM_NRANKS=2 COMM_SECRET=check COMM_ID=" + port.address();
  const std::string arguments = "--count 2 --bytes 64K";
  const Ran ran = run("(" + check_rdma(variables + " COMM_RANK=1", arguments) + " >/dev/null & " +
                      check_rdma(variables + " COMM_RANK=0", arguments) + ")");
  EXPECT_EQ(ran.status, 0) << ran.text;
  EXPECT_THAT(ran.text, HasSubstr("rank 0, 1\n"));
  EXPECT_THAT(ran.text, HasSubstr("RDMA works between all ranks"));
}

TEST(CommCheckRdma, RanksWhosePortsDifferInMtuUseTheSmaller) {
  const test::HeldPort port;
  const std::string variables =
      "COMM_NRANKS=2 COMM_SECRET=check COMM_DEBUG=INFO COMM_ID=" + port.address();
  const std::string arguments = "--count 2 --bytes 64K";
  const Ran ran = run("(" + check_rdma(variables + " COMM_RANK=1 RDMA_DOUBLE_MTU=1024", arguments) +
                      " >/dev/null & " +
                      check_rdma(variables + " COMM_RANK=0 RDMA_DOUBLE_MTU=4096", arguments) + ")");
  EXPECT_EQ(ran.status, 0) << ran.text;
  EXPECT_THAT(ran.text,
              ContainsRegex("data queue pairs over double0:1 .*MTU 4096.* MTU 1024, time"));
  EXPECT_THAT(ran.text, HasSubstr("RDMA works between all ranks"));
}

struct Bad {
  const char* variables;
  const char* says;
};
class WhatIsWrong : public testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(
    CommCheckRdma, WhatIsWrong,
    testing::Values(Bad{"RDMA_DOUBLE_DEVICES=0", "this host has no RDMA device"},
                    Bad{"RDMA_DOUBLE_MEMLOCK=1000", "raise `ulimit -l`"},
                    Bad{"COMM_IB_HCA=mlx5", "COMM_IB_HCA=mlx5: it matches none of: double0:1"},
                    Bad{"COMM_IB_GID_INDEX=77", "COMM_IB_GID_INDEX=77, but this port has no GID"},
                    Bad{"COMM_IB_DISABLE=1", "COMM_IB_DISABLE=1 (environment): unset it"},
                    Bad{"RDMA_DOUBLE_LACKS=permission",
                        "no permission on /dev/infiniband: add the user to the device's group"},
                    Bad{"RDMA_DOUBLE_GIDS=none", "give its interface an address"},
                    Bad{"RDMA_DOUBLE_MAX_QP=1", "use fewer COMM_IB_QPS_PER_CONNECTION"}));

TEST_P(WhatIsWrong, IsSaidInWordsAndByTheExitStatus) {
  const Ran ran = run(check_rdma(GetParam().variables, "--count 1"));
  EXPECT_EQ(ran.status, 1) << ran.text;
  EXPECT_THAT(ran.text, HasSubstr(GetParam().says));
  EXPECT_THAT(ran.text, HasSubstr("rank 1 on "));
  EXPECT_THAT(ran.text, Not(HasSubstr("RDMA works")));
}

TEST(CommCheckRdma, NamesAnMtuThatCouldBeLarger) {
  const Ran ran = run(check_rdma("RDMA_DOUBLE_MTU=1024", "--count 1"));
  EXPECT_EQ(ran.status, 0) << ran.text;
  EXPECT_THAT(ran.text, HasSubstr("MTU 1024: packets of 4096 bytes need frames of 4200"));
}

TEST(CommCheckRdma, RefusesWrongUsageAndNamesTheValue) {
  const Bad bad[] = {{"--ranks 0", "--ranks 0 is not a number in 1..64"},
                     {"--bytes 1", "--bytes 1 is not a size"},
                     {"--bytes", "--bytes lacks its value"},
                     {"--pairs", "--pairs is not an option"}};
  for (const Bad& each : bad) {
    const Ran ran = run(check_rdma("", each.variables));
    EXPECT_EQ(ran.status, 2) << each.variables;
    EXPECT_THAT(ran.text, HasSubstr(each.says));
  }
  EXPECT_EQ(run(check_rdma("", "--help")).status, 0);
}

PairResult one_way(int rank, int peer, double rate) {
  PairResult result;
  result.rank = rank;
  result.peer = peer;
  result.bytes_per_second = rate;
  result.peak_in_flight = result.most_granted = 100;
  return result;
}

TEST(PairReport, NamesSlowPathsFailOversAndWhatBrokeAPromise) {
  std::vector<PairResult> results = {one_way(0, 1, 1e9), one_way(1, 0, 1e9), one_way(0, 2, 1e9),
                                     one_way(2, 0, 1e9)};
  EXPECT_THAT(report_pairs(results).complaints + report_pairs(results).remarks, IsEmpty());
  results[3].bytes_per_second = 0.4e9;
  results[0].failed_qps = 2;
  PairReport report = report_pairs(results);
  EXPECT_THAT(report.remarks, HasSubstr("rank 2 to rank 0: 0.400 GB/s where the middle"));
  EXPECT_THAT(report.remarks, HasSubstr("rank 0 to rank 1: 2 queue pairs failed"));
  EXPECT_THAT(report.complaints, IsEmpty());
  results[1].peak_in_flight = 101;
  results[2].complaint = "nothing moved";
  report = report_pairs(results);
  EXPECT_THAT(report.complaints, HasSubstr("rank 1 to rank 0: 101 bytes were in flight where at "
                                           "most 100 were granted"));
  EXPECT_THAT(report.complaints, HasSubstr("rank 0 to rank 2: nothing moved"));
}

TEST(PairResult, SurvivesItsEncoding) {
  PairResult sent = one_way(3, 4, 12.5);
  sent.sent_again = 7;
  sent.complaint = "the path is lost";
  const auto read = PairResult::decode(sent.encode());
  ASSERT_TRUE(read.is_ok());
  EXPECT_EQ(read->encode(), sent.encode());
  EXPECT_FALSE(PairResult::decode("3 4 x").is_ok());
}

TEST(Pairs, AreAllOfFewRanksAndNeighboursOfMany) {
  EXPECT_EQ(pairs_of(16).size(), 120u);
  EXPECT_EQ(pairs_of(100).size(), 150u) << "each with the next, and with the one half-way round";
}

}  // namespace
}  // namespace libcomm
