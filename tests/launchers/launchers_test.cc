// Every way to start ranks that the guide names: real launchers where they are installed, else the
// variables that they set.
#include <gtest/gtest.h>
#include <netdb.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/base/held_port.h"
#include "tests/base/temp_folder.h"
#include "tests/launchers/jobs.h"

namespace libcomm::test {
namespace {

using namespace std::string_literals;

const std::string kPerf = PROGRAMS + "/all_reduce_perf"s;
const std::string kRun = kPerf + " -b 8 -e 64K -f 8 -c 1 -n 2 -w 1";
// Joins by commInitFromLauncher alone and says "right".
const std::string kOwn = HOSTS_RANK + " allreduce 1000 3"s;
const std::string kSecret = " COMM_SECRET=of-this-test";
const std::string kOpenMpi = "mpirun.openmpi --allow-run-as-root --oversubscribe";

class Launchers : public testing::Test {
 protected:
  void SetUp() override { forget_launchers(); }
};
using OpenMpi = Launchers;
using Mpich = Launchers;
using Torchrun = Launchers;
using Slurm = Launchers;
using OwnVariables = Launchers;

#define NEEDS(program) \
  if (!installed(program)) GTEST_SKIP() << program << " is not installed"

size_t times(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

// One report, by one rank, on a group of this many.
void expect_report(const std::string& out, int nranks) {
  EXPECT_EQ(times(out, "# Out of bounds values : 0 OK"), 1u) << out;
  EXPECT_EQ(times(out, "# Collective test starting"), 1u) << out;
  EXPECT_EQ(times(out, "#  Rank "), static_cast<size_t>(nranks)) << out;
}

// Ranks that were started one by one: rank 0 reports, the others are silent.
void expect_good(const std::vector<Ran>& ran) {
  expect_report(ran[0].out, static_cast<int>(ran.size()));
  for (size_t rank = 0; rank < ran.size(); ++rank) {
    EXPECT_EQ(ran[rank].status, 0) << "rank " << rank << ":\n" << ran[rank].out;
    if (rank > 0) {
      EXPECT_EQ(ran[rank].out, "") << "rank " << rank;
    }
  }
}

void expect_all_fail(const std::vector<Ran>& ran) {
  for (size_t rank = 0; rank < ran.size(); ++rank) {
    EXPECT_NE(ran[rank].status, 0) << "rank " << rank << ":\n" << ran[rank].out;
    EXPECT_NE(ran[rank].status, 124) << "rank " << rank << " hung:\n" << ran[rank].out;
  }
}

// ---- MPI's launchers ----

TEST_F(OpenMpi, StartsTwoOrThree) {
  NEEDS("mpirun.openmpi");
  for (const int nranks : {2, 3}) {
    const Ran ran = run(kOpenMpi + " -np " + std::to_string(nranks) + " " + kRun);
    EXPECT_EQ(ran.status, 0) << ran.out;
    expect_report(ran.out, nranks);
  }
}

TEST_F(OpenMpi, StartsAProgramOfTheCApi) {
  NEEDS("mpirun.openmpi");
  const Ran ran = run(kOpenMpi + " -np 3 " + kOwn);
  EXPECT_EQ(ran.status, 0) << ran.out;
  EXPECT_EQ(times(ran.out, "right"), 3u) << ran.out;
}

TEST_F(OpenMpi, LeavesNothingOfAJobWithAKilledRank) {
  NEEDS("mpirun.openmpi");
  const auto shared_memory = [] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
      if (entry.path().filename().string().find("comm") != std::string::npos)
        names.insert(entry.path().filename().string());
    return names;
  };
  const std::set<std::string> before = shared_memory();
  std::vector<pid_t> pids;
  bool killed = false;
  const Ran ran =
      run_watched(kOpenMpi + " -np 3 " + kPerf + " -b 8 -e 8 -N 0", [&](const std::string& line) {
        int rank = 0, group = 0, pid = 0;
        if (std::sscanf(line.c_str(), "#  Rank %d Group %d Pid %d", &rank, &group, &pid) == 3)
          pids.push_back(pid);
        if (line[0] != ' ' || pids.size() != 3 || killed) return;
        killed = true;  // the first row: all run
        ::kill(pids[1], SIGKILL);
      });
  ASSERT_EQ(pids.size(), 3u) << ran.out.substr(0, 4000);
  EXPECT_NE(ran.status, 0);
  EXPECT_NE(ran.status, 124) << "the job hung";
  // mpirun leaves its daemon's children to init, which reaps them soon.
  for (const pid_t pid : pids) {
    int patience = 12000;
    while (::kill(pid, 0) == 0 && --patience > 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_GT(patience, 0) << "process " << pid << " is still there";
  }
  std::vector<std::string> left;
  const std::set<std::string> after = shared_memory();
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(),
                      std::back_inserter(left));
  EXPECT_TRUE(left.empty()) << "/dev/shm/" << left.front();
}

TEST_F(Mpich, StartsThree) {
  NEEDS("mpiexec.mpich");
  const Ran ran = run("mpiexec.mpich -np 3 " + kRun);
  EXPECT_EQ(ran.status, 0) << ran.out;
  expect_report(ran.out, 3);
}

TEST_F(Mpich, StartsAProgramOfTheCApi) {
  NEEDS("mpiexec.mpich");
  const Ran ran = run("mpiexec.mpich -np 3 " + kOwn);
  EXPECT_EQ(ran.status, 0) << ran.out;
  EXPECT_EQ(times(ran.out, "right"), 3u) << ran.out;
}

// ---- torchrun ----

// As torchrun's agent sets them.
std::string torchrun(int rank, int nranks, const Listener& agent, int restarts = 0) {
  const std::string n = std::to_string(nranks), r = std::to_string(rank);
  return "RANK=" + r + " WORLD_SIZE=" + n + " LOCAL_RANK=" + r + " LOCAL_WORLD_SIZE=" + n +
         " MASTER_ADDR=127.0.0.1 MASTER_PORT=" + std::to_string(agent.port()) +
         " TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=" + std::to_string(restarts);
}

TEST_F(Torchrun, RanksMeetBesideTheAgentsPort) {
  const Listener agent;
  ASSERT_NE(agent.port(), 0);
  expect_good(run_ranks(3, kRun, [&](int rank) { return torchrun(rank, 3, agent) + kSecret; }));
  EXPECT_FALSE(agent.was_called()) << "a rank connected to MASTER_PORT";
}

TEST_F(Torchrun, WithoutASecretSaysSoAndRuns) {
  const Listener agent;
  const auto ran = run_ranks(2, kRun, [&](int rank) { return torchrun(rank, 2, agent); });
  expect_report(ran[0].out, 2);
  EXPECT_NE((ran[0].out + ran[1].out).find("COMM_SECRET"), std::string::npos) << ran[0].out;
}

TEST_F(Torchrun, RanksOfARestartedJobDoNotMeetThoseBefore) {
  const Listener agent;
  expect_all_fail(run_ranks(2, kRun, [&](int rank) {
    return torchrun(rank, 2, agent, rank) + kSecret + " COMM_BOOTSTRAP_TIMEOUT=3";
  }));
}

TEST_F(Torchrun, ARankOutsideTheWorldIsRefused) {
  const Listener agent;
  const auto ran = run_ranks(1, kRun, [&](int) { return torchrun(3, 3, agent) + kSecret; });
  expect_all_fail(ran);
  EXPECT_NE(ran[0].out.find("RANK=3 contradicts WORLD_SIZE=3"), std::string::npos) << ran[0].out;
}

// ---- Slurm ----

// As srun sets them for a step on one node.
std::string slurm(int rank, int nranks, const std::string& node) {
  const std::string r = std::to_string(rank);
  return "SLURM_PROCID=" + r + " SLURM_LOCALID=" + r + " SLURM_NTASKS=" + std::to_string(nranks) +
         " SLURM_JOB_ID=" + std::to_string(::getpid()) +
         " SLURM_STEP_ID=0 SLURM_STEP_NODELIST=" + node;
}

TEST_F(Slurm, RanksMeetByItsVariables) {
  expect_good(run_ranks(3, kRun, [](int rank) { return slurm(rank, 3, "localhost") + kSecret; }));
}

TEST_F(Slurm, RanksMeetByThisHostsName) {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  addrinfo* found = nullptr;
  if (::getaddrinfo(name, nullptr, nullptr, &found) != 0) {
    GTEST_SKIP() << "the name of this host, " << name << ", has no address";
  }
  ::freeaddrinfo(found);
  expect_good(run_ranks(2, kRun, [&](int rank) { return slurm(rank, 2, name) + kSecret; }));
}

TEST_F(Slurm, ABatchScriptIsNoTask) {
  // It has the first two variables, but belongs to no step.
  const auto ran =
      run_ranks(1, kOwn, [](int) { return "SLURM_PROCID=0 SLURM_NTASKS=3 SLURM_JOB_ID=1"s; });
  EXPECT_EQ(ran[0].status, 0) << ran[0].out;
  EXPECT_EQ(times(ran[0].out, "right"), 1u) << ran[0].out;
}

TEST_F(Slurm, StartsTasksWithPmix) {
  NEEDS("srun");
  if (run("srun -n 1 true").status != 0) GTEST_SKIP() << "srun reaches no cluster here";
  const Ran ran = run("srun -n 2 --mpi=pmix " + kRun);
  EXPECT_EQ(ran.status, 0) << ran.out;
  expect_report(ran.out, 2);
}

// ---- our own variables ----

std::string own(int rank, int nranks, const std::string& id) {
  return "COMM_RANK=" + std::to_string(rank) + " COMM_NRANKS=" + std::to_string(nranks) +
         " COMM_ID=" + id + kSecret;
}

TEST_F(OwnVariables, MeetByAddress) {
  for (const std::string& host : {"127.0.0.1:"s, "localhost:"s}) {
    const HeldPort port;
    const std::string id = host + std::to_string(port.number());
    expect_good(run_ranks(3, kRun, [&](int rank) { return own(rank, 3, id); }));
  }
}

TEST_F(OwnVariables, MeetByFile) {
  const TempFolder folder;
  const std::string id = "file://" + (folder / "id");
  expect_good(run_ranks(3, kRun, [&](int rank) { return own(rank, 3, id); }));
}

TEST_F(OwnVariables, MeetByFileOnceMoreAfterAJobHasEnded) {
  const TempFolder folder;
  const std::string id = "file://" + (folder / "id");
  for (int job = 0; job < 2; ++job)
    expect_good(run_ranks(2, kRun, [&](int rank) { return own(rank, 2, id); }));
}

TEST_F(OwnVariables, ComeBeforeALaunchers) {
  const Listener agent;
  const HeldPort port;
  expect_good(run_ranks(2, kRun, [&](int rank) {
    return own(rank, 2, port.address()) + " " + torchrun(1 - rank, 2, agent);
  }));
}

TEST_F(OwnVariables, RanksWithDifferentIdsGiveUp) {
  const HeldPort ports[2];
  expect_all_fail(run_ranks(2, kRun, [&](int rank) {
    return own(rank, 2, ports[rank].address()) + " COMM_BOOTSTRAP_TIMEOUT=3";
  }));
}

TEST_F(OwnVariables, TheSameRankTwiceIsRefused) {
  const HeldPort port;
  const auto ran =
      run_ranks(3, kRun, [&](int process) { return own(std::min(process, 1), 3, port.address()); });
  expect_all_fail(ran);
  for (const Ran& each : ran)
    EXPECT_NE(each.out.find("rank 1 of 3 was taken twice"), std::string::npos) << each.out;
}

TEST_F(OwnVariables, WithoutAnIdTheAnswerNamesIt) {
  const auto ran = run_ranks(1, kRun, [](int) { return "COMM_RANK=0 COMM_NRANKS=2"s; });
  expect_all_fail(ran);
  EXPECT_NE(ran[0].out.find("without COMM_ID"), std::string::npos) << ran[0].out;
}

TEST_F(OwnVariables, NoneAtAllMakeAGroupOfOne) {
  const Ran ran = run(kOwn);
  EXPECT_EQ(ran.status, 0) << ran.out;
  EXPECT_EQ(times(ran.out, "right"), 1u) << ran.out;
}

}  // namespace
}  // namespace libcomm::test
