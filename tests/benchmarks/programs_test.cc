// The programs themselves, run as a user runs them and read as a script for nccl-tests reads them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/benchmarks/json_check.h"

namespace bench {
namespace {

struct Finished {
  int status = -1;
  std::string out;  // both streams
};

std::string program(const std::string& name) { return std::string(BENCH_PROGRAMS) + "/" + name; }

Finished run(const std::string& command) {
  Finished finished;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  char chunk[4096];
  for (size_t size; (size = fread(chunk, 1, sizeof chunk, pipe)) > 0;) {
    finished.out.append(chunk, size);
  }
  const int status = pclose(pipe);
  finished.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return finished;
}

// The rows of a table: lines that begin with blanks and a digit.
std::vector<std::vector<std::string>> rows_of(const std::string& text) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::vector<std::string> row;
    for (std::string word; words >> word;) row.push_back(word);
    if (!row.empty() && std::isdigit(static_cast<unsigned char>(row[0][0])) != 0 &&
        line[0] == ' ') {
      rows.push_back(row);
    }
  }
  return rows;
}

// The process id in a "#  Rank ..." line of the header, when the line is this rank's; else 0.
pid_t pid_of_rank(const char* line, int wanted) {
  int rank = -1;
  int pid = 0;
  const int read = std::sscanf(line, "#  Rank %d Group 0 Pid %d", &rank, &pid);
  return read == 2 && rank == wanted ? pid : 0;
}

void expect_clean(const Finished& finished, size_t rows) {
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_NE(finished.out.find("# Out of bounds values : 0 OK"), std::string::npos) << finished.out;
  EXPECT_NE(finished.out.find("# Avg bus bandwidth    : "), std::string::npos);
  const auto table = rows_of(finished.out);
  EXPECT_EQ(table.size(), rows) << finished.out;
  for (const auto& row : table) {
    ASSERT_EQ(row.size(), 13u) << finished.out;
    EXPECT_EQ(row[8], "0");
    EXPECT_TRUE(row[12] == "0" || row[12] == "N/A");
    EXPECT_GT(std::stod(row[5]), 0.0);
  }
}

class EveryProgram : public testing::TestWithParam<const char*> {};

TEST_P(EveryProgram, IsRightOnProcesses) {
  expect_clean(run(program(GetParam()) + " --procs 3 -b 4 -e 256K -f 16 -n 3 -w 1"), 5);
}

TEST_P(EveryProgram, IsRightOnThreads) {
  expect_clean(run(program(GetParam()) + " -t 3 -b 1K -e 64K -f 8 -n 3 -w 1 -d bfloat16"), 3);
}

INSTANTIATE_TEST_SUITE_P(Programs, EveryProgram,
                         testing::Values("all_reduce_perf", "all_gather_perf",
                                         "reduce_scatter_perf", "broadcast_perf", "reduce_perf",
                                         "alltoall_perf", "gather_perf", "scatter_perf",
                                         "sendrecv_perf"),
                         [](const auto& test) { return std::string(test.param); });

TEST(AllReducePerf, IsRightForEveryTypeAndOperator) {
  // 12 types x 6 operators x 1 size, then the bitwise ones on integers.
  expect_clean(run(program("all_reduce_perf") + " -t 3 -b 3000 -e 3000 -n 1 -w 0 -d all -o all"),
               72);
  expect_clean(run(program("all_reduce_perf") + " -t 3 -b 3000 -e 3000 -n 1 -w 0 -d all -o bxor"),
               6);
}

TEST(AllReducePerf, IsRightWithEveryWayOfCalling) {
  for (const char* flags : {"-z 1", "--stream", "--stream -z 1", "-m 4", "-R 1", "-R 2",
                            "--memory comm", "-a 0", "-a 2", "-a 3", "-C 1", "-N 2 -e 8", "-c 3"}) {
    SCOPED_TRACE(flags);
    expect_clean(
        run(program("all_reduce_perf") + " --procs 2 -b 8 -e 32K -f 4096 -n 2 -w 1 " + flags), 2);
  }
}

TEST(AllReducePerf, IsRightWhenAThreadDrivesSeveralRanks) {
  expect_clean(run(program("all_reduce_perf") + " --procs 2 -g 2 -b 8 -e 32K -f 4096 -n 2 -w 1"),
               2);
  expect_clean(run(program("all_reduce_perf") + " -t 2 -p 1 -b 8 -e 32K -f 4096 -n 2 -w 1"), 2);
}

TEST(BroadcastPerf, RunsOncePerRoot) {
  const Finished finished =
      run(program("broadcast_perf") + " --procs 3 -b 1K -e 1K -n 2 -w 1 -r all");
  expect_clean(finished, 3);
  const auto rows = rows_of(finished.out);
  for (size_t root = 0; root < rows.size(); ++root) EXPECT_EQ(rows[root][4], std::to_string(root));
}

TEST(ReducePerf, RefusesARootThatIsNoRank) {
  const Finished finished = run(program("reduce_perf") + " --procs 2 -r 2");
  EXPECT_NE(finished.status, 0);
  EXPECT_NE(finished.out.find("--root=2 is not a rank of this run: 0 to 1 are"), std::string::npos)
      << finished.out;
}

TEST(SendrecvPerf, SendsOneWay) {
  expect_clean(run(program("sendrecv_perf") + " --procs 2 --one_way -b 8 -e 32K -f 4096 -n 2 -w 1"),
               2);
}

TEST(Sizes, AreThoseOfTheLargerBufferAndCountsThoseOfTheCall) {
  const struct {
    const char* name;
    const char* count;
  } cases[] = {{"all_reduce_perf", "1024"},
               {"all_gather_perf", "512"},
               {"reduce_scatter_perf", "512"},
               {"alltoall_perf", "512"}};
  for (const auto& each : cases) {
    const auto rows =
        rows_of(run(program(each.name) + " --procs 2 -b 4K -e 4K -n 1 -w 0 -c 0").out);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0][0], "4096") << each.name;
    EXPECT_EQ(rows[0][1], each.count) << each.name;
    EXPECT_EQ(rows[0][8], "N/A") << "with -c 0";
  }
}

TEST(Json, IsWrittenAndValid) {
  const std::string path = testing::TempDir() + "bench_programs_test.json";
  const Finished finished =
      run(program("all_reduce_perf") + " --procs 2 -b 8 -e 4K -f 8 -n 2 -w 1 -J " + path);
  EXPECT_EQ(finished.status, 0) << finished.out;
  std::ifstream file(path);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  unlink(path.c_str());
  EXPECT_EQ(json_error(json), "") << json;
  EXPECT_NE(json.find(R"("size":4096)"), std::string::npos) << json;
}

TEST(Json, ThatCannotBeWrittenIsSaidBeforeAnythingIsMeasured) {
  const Finished finished =
      run(program("all_reduce_perf") + " --procs 2 -b 8 -e 8 -n 1 -J /nowhere/results.json");
  EXPECT_EQ(finished.status, 1) << finished.out;
  EXPECT_NE(finished.out.find("/nowhere/results.json: No such file or directory"),
            std::string::npos)
      << finished.out;
  EXPECT_TRUE(rows_of(finished.out).empty()) << finished.out;
}

TEST(InitPerf, ReportsThreadsAndProcesses) {
  const auto threads = rows_of(run(program("init_perf") + " --ranks 8 -n 3").out);
  ASSERT_EQ(threads.size(), 1u);
  EXPECT_EQ(threads[0][0], "8");
  EXPECT_EQ(threads[0][3], "3");
  const auto processes = rows_of(run(program("init_perf") + " --procs 2 --ranks 2 -n 2 -w 0").out);
  ASSERT_EQ(processes.size(), 1u);
  EXPECT_EQ(processes[0][0], "4");
  EXPECT_EQ(processes[0][1], "2");
}

TEST(InitPerf, ShowsThatALoneRankHoldsNoChannel) {
  const auto rows = rows_of(run(program("init_perf") + " --ranks 1 -n 1").out);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0][9], "0");  // channels
}

TEST(OverlapPerf, ComparesTogetherWithAlone) {
  const Finished finished = run(program("overlap_perf") + " --procs 2 -b 64K -e 256K -f 4 -n 3");
  EXPECT_EQ(finished.status, 0) << finished.out;
  const auto rows = rows_of(finished.out);
  ASSERT_EQ(rows.size(), 2u) << finished.out;
  EXPECT_EQ(rows[0][0], "65536");
  EXPECT_EQ(rows[1][0], "262144");
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 5u);
    EXPECT_GE(std::stod(row[4]), 0);
    EXPECT_LE(std::stod(row[4]), 100);
  }
  EXPECT_EQ(run(program("overlap_perf") + " -b 0").status, 2);
}

// Runs a program that prints rows for ever until its first row, sends the signal to a rank, and
// reads on to the end. Its text without the rows is in `out`.
Finished run_and_signal(const std::string& command, int rank, int signal_number) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  Finished finished;
  pid_t target = 0;
  char line[4096];
  while (fgets(line, sizeof line, pipe) != nullptr) {
    if (line[0] != ' ') finished.out += line;
    if (const pid_t pid = pid_of_rank(line, rank); pid != 0) target = pid;
    if (line[0] == ' ' && target != 0) {
      kill(target, signal_number);
      target = 0;
    }
  }
  const int status = pclose(pipe);
  finished.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return finished;
}

TEST(Programs, EndWhenARankIsKilledAndNameIt) {
  const Finished finished =
      run_and_signal(program("all_reduce_perf") + " --procs 3 -b 8 -e 8 -N 0", 2, SIGKILL);
  EXPECT_EQ(finished.status, 128 + SIGKILL) << finished.out;
  EXPECT_NE(finished.out.find("process 2 (pid "), std::string::npos) << finished.out;
}

TEST(Programs, EndWithTheTimeoutThatTSets) {
  // A stopped rank's own watchdog sleeps with it; the other's does not.
  const Finished finished =
      run_and_signal(program("all_reduce_perf") + " --procs 2 -b 8 -e 8 -N 0 -T 2", 1, SIGSTOP);
  EXPECT_EQ(finished.status, 1) << finished.out;
  EXPECT_NE(finished.out.find("took longer than 2 s (--timeout)"), std::string::npos)
      << finished.out;
}

TEST(Programs, JoinALaunchersRanks) {
  if (std::system("command -v mpirun.openmpi > /dev/null") != 0) {
    GTEST_SKIP() << "mpirun.openmpi is not installed";
  }
  expect_clean(run("mpirun.openmpi --allow-run-as-root --oversubscribe -np 3 " +
                   program("all_reduce_perf") + " -b 8 -e 32K -f 4096 -n 2 -w 1"),
               2);
}

TEST(Programs, JoinRanksNamedByOurOwnVariables) {
  const std::string id = testing::TempDir() + "bench_programs_test.id." + std::to_string(getpid());
  const std::string rank = "COMM_NRANKS=2 COMM_ID=file://" + id + " COMM_RANK=";
  const std::string flags = program("all_reduce_perf") + " -t 2 -b 8 -e 32K -f 4096 -n 2 -w 1";
  const Finished finished = run(rank + "1 " + flags + " & " + rank + "0 " + flags + "; wait $!");
  unlink(id.c_str());
  expect_clean(finished, 2);
}

}  // namespace
}  // namespace bench
