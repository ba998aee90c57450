// Groups of processes: deaths are noticed at once, and launchers' variables are understood. The
// program starts itself again for every rank, with a role in LIBCOMM_TEST_ROLE.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>

#include "src/bootstrap/launcher.h"
#include "tests/base/held_port.h"
#include "tests/bootstrap/support.h"

extern char** environ;

namespace libcomm::testing {
namespace {

// ---- A rank's side --------------------------------------------------------------------------

void say(const std::string& line) {
  const std::string text = line + "\n";
  (void)!::write(STDOUT_FILENO, text.data(), text.size());
}

// Joins as the environment says, reports, and tells what it hears until its input ends.
int play_rank(const std::string& role) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto knobs = Knobs::load();
  if (!knobs) return say("error " + knobs.status().message()), 1;
  NewsLog news;
  LauncherInfo info;
  if (const auto hex = environment("LIBCOMM_TEST_ID"); hex.has_value()) {
    info.rank = *environment_number("LIBCOMM_TEST_RANK", 0, 0);
    info.nranks = *environment_number("LIBCOMM_TEST_NRANKS", 1, 1);
    info.rendezvous.ids.push_back(*from_hex(*hex, "the test"));
  } else {
    auto launched = join_launcher(**knobs);
    if (!launched) return say("error " + launched.status().to_string()), 1;
    info = *std::move(launched);
  }
  auto joined = Bootstrap::join(info.rendezvous, info.rank, info.nranks, *knobs, news.callback());
  if (!joined) return say("error " + joined.status().to_string()), 1;
  Bootstrap& group = **joined;
  auto pids = group.all_gather_text(std::to_string(::getpid()));
  if (!pids) return say("error " + pids.status().to_string()), 1;
  for (int peer = 0; peer < info.nranks; ++peer)
    group.watch_process(peer, std::stoll((*pids)[static_cast<size_t>(peer)]));
  if (role == "launched") {
    say(fmt::format("joined {} {}/{}", info.launcher, info.rank, info.nranks));
    return 0;
  }
  if (role == "haunted" && info.rank == 1) {
    // A child that no fork handler saw: it holds copies of every socket, as a child forked by a
    // thread in native code might. No end of stream will come from this rank.
    const long child = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (child == 0) {
      for (;;) ::pause();
    }
    say(fmt::format("child {}", child));
  }
  if (!group.barrier()) return 1;
  say("joined");
  if (role == "leaves" && info.rank == 1) {
    joined->reset();
    return 0;
  }
  const Status death = news.await(News::kDeath, role == "leaves" ? 1 : 120);
  say(death ? "nothing" : fmt::format("death of {}: {}", death.peer(), death.message()));
  return 0;
}

// ---- The test's side ------------------------------------------------------------------------

class RankProcess {
 public:
  RankProcess(const std::string& role, const std::map<std::string, std::string>& variables) {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    out_ = UniqueFd(fds[0]);
    UniqueFd in(fds[1]);
    std::vector<std::string> texts;
    for (char** entry = environ; *entry != nullptr; ++entry) texts.push_back(*entry);
    for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
    texts.push_back("LIBCOMM_TEST_ROLE=" + role);
    std::vector<char*> environment;
    for (std::string& text : texts) environment.push_back(text.data());
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
    char path[] = "/proc/self/exe";
    char* arguments[] = {path, nullptr};
    EXPECT_EQ(::posix_spawn(&pid_, path, &actions, nullptr, arguments, environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  RankProcess(RankProcess&&) = default;
  ~RankProcess() {
    if (pid_ > 0 && out_) kill();
  }

  pid_t pid() const { return pid_; }
  void kill() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  int wait() {
    int status = -1;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  // The next line it says; "" when it says nothing for long, or ended.
  std::string line() {
    size_t end;
    while ((end = text_.find('\n')) == std::string::npos) {
      pollfd ready = {out_.get(), POLLIN, 0};
      if (::poll(&ready, 1, 60000) <= 0) return "";
      char piece[512];
      const ssize_t got = ::read(out_.get(), piece, sizeof piece);
      if (got <= 0) return "";
      text_.append(piece, static_cast<size_t>(got));
    }
    const std::string line = text_.substr(0, end);
    text_.erase(0, end + 1);
    return line;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd out_;
  std::string text_;
};

std::vector<RankProcess> start_group(int nranks, const std::string& role) {
  auto id = make_unique_id(*knobs_with({}));
  EXPECT_TRUE(id.is_ok()) << id.status().message();
  std::vector<RankProcess> ranks;
  for (int rank = 0; rank < nranks; ++rank)
    ranks.emplace_back(
        role, std::map<std::string, std::string>{{"LIBCOMM_TEST_ID", to_hex(*id)},
                                                 {"LIBCOMM_TEST_RANK", std::to_string(rank)},
                                                 {"LIBCOMM_TEST_NRANKS", std::to_string(nranks)}});
  return ranks;
}

TEST(Death, OfAKilledRankIsNamedByAllSurvivors) {
  auto ranks = start_group(6, "stays");
  for (RankProcess& rank : ranks) EXPECT_EQ(rank.line(), "joined");
  const pid_t victim = ranks[2].pid();
  ranks[2].kill();
  for (int rank : {0, 1, 3, 4, 5}) {
    const std::string heard = ranks[static_cast<size_t>(rank)].line();
    EXPECT_EQ(heard.find(fmt::format("death of 2: rank 2 (pid {} on host ", victim)), 0u) << heard;
    EXPECT_EQ(ranks[static_cast<size_t>(rank)].wait(), 0);
  }
}

TEST(Death, IsNoticedThoughAChildKeepsTheSocketsOpen) {
  auto ranks = start_group(5, "haunted");
  const std::string child = ranks[1].line();
  ASSERT_EQ(child.find("child "), 0u) << child;
  for (RankProcess& rank : ranks) EXPECT_EQ(rank.line(), "joined");
  // By the signal alone: the sockets stay open in the child.
  ranks[1].kill();
  for (int rank : {0, 2, 3, 4}) {
    const std::string heard = ranks[static_cast<size_t>(rank)].line();
    EXPECT_EQ(heard.find("death of 1: "), 0u) << heard;
    EXPECT_EQ(ranks[static_cast<size_t>(rank)].wait(), 0);
  }
  ::kill(static_cast<pid_t>(std::stol(child.substr(6))), SIGKILL);
}

TEST(Death, IsNotSeenInAProcessThatLeftInGoodOrder) {
  auto ranks = start_group(5, "leaves");
  for (RankProcess& rank : ranks) EXPECT_EQ(rank.line(), "joined");
  for (int rank : {0, 2, 3, 4})
    EXPECT_EQ(ranks[static_cast<size_t>(rank)].line(), "nothing") << rank;
}

void expect_launched(const std::string& launcher,
                     const std::function<std::map<std::string, std::string>(int)>& variables) {
  std::vector<RankProcess> ranks;
  for (int rank = 0; rank < 3; ++rank) ranks.emplace_back("launched", variables(rank));
  for (int rank = 0; rank < 3; ++rank) {
    RankProcess& process = ranks[static_cast<size_t>(rank)];
    EXPECT_EQ(process.line(), fmt::format("joined {} {}/3", launcher, rank));
    EXPECT_EQ(process.wait(), 0);
  }
}

TEST(Launcher, TorchrunsVariablesLeadToAGroup) {
  // The agent's own port, which must stay untouched.
  expect_launched("torchrun", [](int rank) {
    return std::map<std::string, std::string>{{"RANK", std::to_string(rank)},
                                              {"WORLD_SIZE", "3"},
                                              {"MASTER_ADDR", "localhost"},
                                              {"MASTER_PORT", "29511"},
                                              {"TORCHELASTIC_RUN_ID", std::to_string(::getpid())}};
  });
}

TEST(Launcher, SlurmsVariablesLeadToAGroup) {
  expect_launched("slurm", [](int rank) {
    return std::map<std::string, std::string>{{"SLURM_PROCID", std::to_string(rank)},
                                              {"SLURM_NTASKS", "3"},
                                              {"SLURM_JOB_ID", std::to_string(::getpid())},
                                              {"SLURM_STEP_NODELIST", "localhost"}};
  });
}

TEST(Launcher, OwnVariablesLeadToAGroup) {
  const std::string id = fmt::format("file:///tmp/libcomm-launcher-{}", ::getpid());
  expect_launched("comm", [&](int rank) {
    return std::map<std::string, std::string>{
        {"COMM_RANK", std::to_string(rank)}, {"COMM_NRANKS", "3"}, {"COMM_ID", id}};
  });
}

// Two processes with rank 0 each serve the rendezvous that the other ranks would come to.
void expect_rivals(const std::map<std::string, std::string>& variables) {
  std::vector<RankProcess> ranks;
  for (int i = 0; i < 2; ++i) ranks.emplace_back("launched", variables);
  for (RankProcess& process : ranks) {
    const std::string said = process.line();
    EXPECT_NE(said.find("rank 0 of 2 was taken twice"), std::string::npos) << said;
    process.wait();
  }
}

TEST(Rivals, HearOfEachOtherUnderTorchrun) {
  expect_rivals({{"RANK", "0"},
                 {"WORLD_SIZE", "2"},
                 {"MASTER_ADDR", "localhost"},
                 {"MASTER_PORT", "29511"},
                 {"TORCHELASTIC_RUN_ID", std::to_string(::getpid())}});
}

TEST(Rivals, HearOfEachOtherAtAnAddress) {
  const test::HeldPort port;
  expect_rivals({{"COMM_RANK", "0"}, {"COMM_NRANKS", "2"}, {"COMM_ID", port.address()}});
}

TEST(Rivals, HearOfEachOtherByAFile) {
  const std::string path = fmt::format("/tmp/libcomm-rivals-{}", ::getpid());
  expect_rivals({{"COMM_RANK", "0"}, {"COMM_NRANKS", "2"}, {"COMM_ID", "file://" + path}});
  EXPECT_NE(::access(path.c_str(), F_OK), 0) << path << " was left";
  ::unlink(path.c_str());
}

TEST(KilledServer, IsNamedByItsAddress) {
  const std::string path = fmt::format("/tmp/libcomm-server-{}", ::getpid());
  const auto variables = [&](const char* rank) {
    return std::map<std::string, std::string>{{"COMM_RANK", rank},
                                              {"COMM_NRANKS", "3"},
                                              {"COMM_ID", "file://" + path},
                                              {"COMM_DEBUG", "INFO"},
                                              {"COMM_DEBUG_SUBSYS", "BOOTSTRAP"},
                                              {"COMM_DEBUG_FILE", path + ".log"}};
  };
  const auto log = [&] {
    std::ifstream file(path + ".log");
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  RankProcess server("launched", variables("0"));
  RankProcess rank("launched", variables("1"));
  for (int i = 0; i < 60'000 && log().find("rank 1 of 3 reported") == std::string::npos; ++i)
    ::usleep(1000);
  server.kill();
  const std::string said = rank.line();
  EXPECT_NE(said.find("the process that serves the unique id, at "), std::string::npos) << said;
  EXPECT_NE(said.find("went away before all ranks had come"), std::string::npos) << said;
  EXPECT_EQ(said.find("no address"), std::string::npos) << said;
  rank.wait();
  ::unlink(path.c_str());
  ::unlink((path + ".log").c_str());
}

// What join_launcher() says with these variables set.
std::string complaint(const std::map<std::string, std::string>& variables) {
  RankProcess process("launched", variables);
  const std::string line = process.line();
  process.wait();
  return line;
}

TEST(Launcher, NamesVariablesThatContradictOrAreGarbage) {
  const auto expect = [](const std::map<std::string, std::string>& variables,
                         const std::string& text) {
    const std::string said = complaint(variables);
    EXPECT_EQ(said.find("error "), 0u) << said;
    EXPECT_NE(said.find(text), std::string::npos) << said;
  };
  expect({{"RANK", "3"}, {"WORLD_SIZE", "3"}}, "RANK=3 contradicts WORLD_SIZE=3");
  expect({{"RANK", "x"}, {"WORLD_SIZE", "3"}}, "RANK=x is not a number");
  expect({{"RANK", "1"}, {"WORLD_SIZE", "3"}}, "without MASTER_ADDR");
  expect({{"RANK", "1"}, {"MASTER_ADDR", "x"}},
         "RANK=1 and MASTER_ADDR are set without WORLD_SIZE");
  expect({{"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}}, "are set without RANK");
  expect({{"COMM_RANK", "2"}, {"COMM_NRANKS", "2"}}, "COMM_RANK=2 contradicts COMM_NRANKS=2");
  expect({{"COMM_RANK", "0"}}, "without COMM_NRANKS");
  expect({{"COMM_RANK", "0"}, {"COMM_NRANKS", "2"}}, "without COMM_ID");
  expect({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}, "without PMI_FD");
  expect({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"PMI_FD", "1"}}, "PMI_FD=1 is not a socket");
  expect({{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_NODELIST", "n[1-2]"}},
         "SLURM_PROCID=5 contradicts SLURM_NTASKS=2");
}

TEST(Launcher, NoneGivesAGroupOfOne) { EXPECT_EQ(complaint({}), "joined none 0/1"); }

// Under a real launcher, when it is installed.
void run_under(const std::string& command, const std::string& launcher) {
  const std::string program = command.substr(0, command.find(' '));
  if (std::system(("command -v " + program + " >/dev/null").c_str()) != 0)
    GTEST_SKIP() << program << " is not installed";
  char self[4096];
  const ssize_t length = ::readlink("/proc/self/exe", self, sizeof self - 1);
  ASSERT_GT(length, 0);
  const std::string line = fmt::format("LIBCOMM_TEST_ROLE=launched {} {} 2>&1", command,
                                       std::string(self, static_cast<size_t>(length)));
  FILE* pipe = ::popen(line.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  for (int c; (c = ::fgetc(pipe)) != EOF;) output += static_cast<char>(c);
  EXPECT_EQ(::pclose(pipe), 0) << output;
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_NE(output.find(fmt::format("joined {} {}/3", launcher, rank)), std::string::npos)
        << output;
}

TEST(Launcher, OpenMpisMpirunLeadsToAGroup) {
  run_under("mpirun.openmpi --allow-run-as-root --oversubscribe -np 3", "pmix");
}

TEST(Launcher, MpichsMpiexecLeadsToAGroup) { run_under("mpiexec.mpich -n 3", "pmi1"); }

}  // namespace
}  // namespace libcomm::testing

// What libpmix itself leaves allocated at exit is not this library's (LeakSanitizer asks).
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libpmix.so"; }

int main(int argc, char** argv) {
  if (const char* role = std::getenv("LIBCOMM_TEST_ROLE"); role != nullptr)
    return libcomm::testing::play_rank(role);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
