// Local processes: they get what they need, and none outlives a failure.
#include "benchmarks/harness/launch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace bench {
namespace {

bool has_children() { return waitpid(-1, nullptr, WNOHANG) != -1; }

// Never returns by itself; a child that outlives its test shows as a hang.
[[noreturn]] int wait_for_ever() {
  while (true) pause();
}

TEST(LocalProcesses, RunOncePerIndexAndAllSucceed) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const int status = run_local_processes("test", 4, [&](int index, Relay&) {
    const char digit = static_cast<char>('0' + index);
    return write(ends[1], &digit, 1) == 1 ? 0 : 1;
  });
  close(ends[1]);
  EXPECT_EQ(status, 0);
  int seen = 0;
  for (char digit; read(ends[0], &digit, 1) == 1;) seen |= 1 << (digit - '0');
  close(ends[0]);
  EXPECT_EQ(seen, 0b1111);
  EXPECT_FALSE(has_children());
}

TEST(LocalProcesses, ShareWhatTheFirstOneSays) {
  const int status = run_local_processes("test", 5, [](int index, Relay& relay) {
    for (int round = 0; round < 20; ++round) {
      char bytes[128];
      std::memset(bytes, index == 0 ? round : 99, sizeof bytes);
      if (!relay.share(bytes, sizeof bytes)) return 1;
      for (const char byte : bytes) {
        if (byte != round) return 2;
      }
    }
    return 0;
  });
  EXPECT_EQ(status, 0);
}

TEST(LocalProcesses, GiveTheFirstFailuresExitStatus) {
  testing::internal::CaptureStderr();
  const int status =
      run_local_processes("test", 3, [](int index, Relay&) { return index == 2 ? 7 : 0; });
  EXPECT_EQ(status, 7);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("process 2 (pid "), std::string::npos) << text;
  EXPECT_NE(text.find("exit status 7"), std::string::npos) << text;
}

TEST(LocalProcesses, EndTheOthersWhenOneIsKilledAndNameIt) {
  testing::internal::CaptureStderr();
  const int status = run_local_processes("test", 3, [](int index, Relay&) {
    if (index == 1) raise(SIGKILL);
    return wait_for_ever();
  });
  EXPECT_EQ(status, 128 + SIGKILL);
  EXPECT_FALSE(has_children());
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("test: process 1 (pid "), std::string::npos) << text;
  EXPECT_NE(text.find("signal 9 (Killed)"), std::string::npos) << text;
}

TEST(LocalProcesses, EndAChildThatWaitsForWordFromADeadFirstOne) {
  testing::internal::CaptureStderr();
  const int status = run_local_processes("test", 2, [](int index, Relay& relay) {
    if (index == 0) raise(SIGKILL);
    char bytes[16];
    while (!relay.share(bytes, sizeof bytes)) {
    }
    return 0;
  });
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(status, 128 + SIGKILL);
}

// A process that runs children which wait for ever, each holding the write end of a pipe.
class WaitingFamily {
 public:
  explicit WaitingFamily(int children) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    parent_ = fork();
    if (parent_ == 0) {
      close(ends[0]);
      _exit(run_local_processes("test", children, [&](int, Relay&) {
        const char ready = 'r';
        if (write(ends[1], &ready, 1) != 1) return 1;
        return wait_for_ever();
      }));
    }
    close(ends[1]);
    pipe_ = ends[0];
    char ready;
    for (int i = 0; i < children; ++i) EXPECT_EQ(read(pipe_, &ready, 1), 1);
  }
  ~WaitingFamily() { close(pipe_); }

  // Signals the parent and waits until every process of the family is gone: the pipe ends with the
  // last of them.
  int end_with(int signal_number) {
    kill(parent_, signal_number);
    char byte;
    EXPECT_EQ(read(pipe_, &byte, 1), 0);
    int status = 0;
    EXPECT_EQ(waitpid(parent_, &status, 0), parent_);
    return status;
  }

 private:
  pid_t parent_ = 0;
  int pipe_ = -1;
};

TEST(LocalProcesses, DieWithAParentThatIsKilled) {
  WaitingFamily family(3);
  EXPECT_TRUE(WIFSIGNALED(family.end_with(SIGKILL)));
}

TEST(LocalProcesses, EndWhenTheParentIsAskedToStop) {
  WaitingFamily family(3);
  const int status = family.end_with(SIGTERM);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM);
}

TEST(LocalProcesses, LeaveTheParentsSignalMaskAsItWas) {
  sigset_t before, after;
  sigprocmask(SIG_BLOCK, nullptr, &before);
  run_local_processes("test", 2, [](int, Relay&) { return 0; });
  sigprocmask(SIG_BLOCK, nullptr, &after);
  for (const int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) {
    EXPECT_EQ(sigismember(&before, number), sigismember(&after, number));
  }
}

class Launched : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kNames) unsetenv(name);
  }
  void TearDown() override { SetUp(); }
  static constexpr const char* kNames[] = {
      "COMM_RANK",    "COMM_NRANKS",  "PMIX_RANK",          "PMIX_NAMESPACE", "PMI_RANK",
      "PMI_SIZE",     "RANK",         "WORLD_SIZE",         "MASTER_ADDR",    "MASTER_PORT",
      "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"};
};

TEST_F(Launched, IsTrueUnderEachLauncherAndOnlyWithItsWholeSet) {
  EXPECT_FALSE(launched());
  const std::vector<std::vector<const char*>> launchers = {
      {"COMM_RANK", "COMM_NRANKS"},
      {"PMIX_RANK", "PMIX_NAMESPACE"},
      {"PMI_RANK", "PMI_SIZE"},
      {"RANK", "WORLD_SIZE"},
      {"MASTER_PORT", "MASTER_ADDR", "RANK"},
      {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"}};
  for (const auto& names : launchers) {
    for (const char* name : names) {
      EXPECT_FALSE(launched()) << "before " << name;
      setenv(name, "1", 1);
    }
    EXPECT_TRUE(launched()) << names[0];
    SetUp();
  }
}

}  // namespace
}  // namespace bench
