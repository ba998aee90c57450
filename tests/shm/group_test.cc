// Groups: who shares memory with whom, that all agree on it, and that nothing is left behind.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "tests/shm/ranks.h"
#include "transports/facts.h"

namespace libcomm::testing {
namespace {

using libcomm::FdWay;

// Every rank tells all others its group_of; they must be what the test expects, and members must
// see what each other writes on the board.
std::string expect_groups(Rank& self, const std::vector<int>& expected) {
  RANK_CHECK(self.group.group_of == expected);
  const int mine = expected[static_cast<size_t>(self.rank)];
  std::vector<int> members;
  for (size_t rank = 0; rank < expected.size(); ++rank)
    if (expected[rank] == mine) members.push_back(static_cast<int>(rank));
  if (members.size() == 1) {
    RANK_CHECK(self.group.board == nullptr && self.group.transport == nullptr);
    RANK_OK(self.barrier());
    RANK_OK(self.barrier());
    return {};
  }
  Board* board = self.group.board;
  RANK_CHECK(board != nullptr);
  RANK_CHECK(
      std::equal(board->ranks().begin(), board->ranks().end(), members.begin(), members.end()));
  RANK_CHECK(board->ranks()[static_cast<size_t>(board->index())] == self.rank);
  for (const PeerFacts& other : self.facts)
    RANK_CHECK(self.group.transport->reaches(self.facts[static_cast<size_t>(self.rank)], other) ==
               (other.rank != self.rank && expected[static_cast<size_t>(other.rank)] == mine));
  const size_t last = board->part_bytes() - 1;
  RANK_CHECK(board->part(board->index())[last] == std::byte{0});
  board->part(board->index())[last] = static_cast<std::byte>(self.rank + 1);
  RANK_OK(self.barrier());
  for (size_t i = 0; i < members.size(); ++i)
    RANK_CHECK(board->part(static_cast<int>(i))[last] == static_cast<std::byte>(members[i] + 1));
  RANK_OK(self.barrier());
  return {};
}

RankBody expecting(std::vector<int> groups) {
  return [groups](Rank& self) { return expect_groups(self, groups); };
}

// Only the given ranks may use the given ways.
std::function<shm::GroupOptions(int)> ways(
    const std::function<bool(int rank, FdWay way)>& allowed) {
  return [allowed](int rank) {
    shm::GroupOptions options;
    options.allow_way = [allowed, rank](FdWay way) { return allowed(rank, way); };
    return options;
  };
}

std::vector<std::string> files_in(const char* folder) {
  std::vector<std::string> names;
  if (DIR* open = ::opendir(folder); open != nullptr) {
    while (const dirent* entry = ::readdir(open)) names.emplace_back(entry->d_name);
    ::closedir(open);
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(ShmGroup, JoinsThreadsOfOneProcess) { run_threads(4, expecting({0, 0, 0, 0})); }
TEST(ShmGroup, JoinsProcesses) { run_processes(4, expecting({0, 0, 0, 0})); }
TEST(ShmGroup, LeavesASingleRankAlone) { run_threads(1, expecting({0})); }

TEST(ShmGroup, MapsTheMemoryOncePerProcess) {
  std::vector<std::byte*> parts(3);
  run_threads(3, [&](Rank& self) -> std::string {
    parts[static_cast<size_t>(self.rank)] = self.group.board->part(0);
    RANK_OK(self.barrier());
    RANK_CHECK(parts[0] == parts[1] && parts[0] == parts[2]);
    return {};
  });
}

TEST(ShmGroup, HostsThatClaimToDifferStayApart) {
  RankOptions options;
  options.before = [](int rank) { ::setenv("COMM_HOSTID", rank < 2 ? "left" : "right", 1); };
  run_processes(5, expecting({0, 0, 2, 2, 2}), options);
}

TEST(ShmGroup, IsNotMadeWhenSharedMemoryIsDisabled) {
  RankOptions options;
  options.before = [](int) { ::setenv("COMM_SHM_DISABLE", "1", 1); };
  run_processes(3, expecting({0, 1, 2}), options);
}

TEST(ShmGroup, WorksAcrossNetworkNamespaces) {
  RankOptions options;
  options.before = [](int) {
    if (::unshare(CLONE_NEWNET) != 0) std::abort();
  };
  if (::geteuid() != 0) GTEST_SKIP() << "making network namespaces needs root";
  run_processes(3, expecting({0, 0, 0}), options);
  // The same where /proc does not help.
  options.group = ways([](int, FdWay way) { return way != FdWay::kProc; });
  run_processes(3, expecting({0, 0, 0}), options);
}

TEST(ShmGroup, PassesTheMemoryThroughAnAbstractSocketWithoutProc) {
  RankOptions options;
  options.group = ways([](int, FdWay way) { return way == FdWay::kAbstractSocket; });
  run_processes(4, expecting({0, 0, 0, 0}), options);
}

TEST(ShmGroup, PassesTheMemoryThroughASocketInTheFileSystemAndRemovesIt) {
  const std::vector<std::string> before = files_in("/tmp");
  RankOptions options;
  options.group = ways([](int, FdWay way) { return way == FdWay::kPathSocket; });
  run_processes(3, expecting({0, 0, 0}), options);
  for (const std::string& name : files_in("/tmp"))
    EXPECT_FALSE(name.starts_with(".libcomm-")) << name << " was left in /tmp";
}

TEST(ShmGroup, AgreesToLeaveOutAMemberThatCannotMap) {
  RankOptions options;
  options.group = ways([](int rank, FdWay) { return rank != 2; });
  run_processes(4, expecting({0, 0, 2, 0}), options);
}

TEST(ShmGroup, MembersLeftOutMakeAGroupOfTheirOwn) {
  // As two containers on one host: ranks 1 and 3 reach nobody but each other.
  RankOptions options;
  int elections = 0;  // in each process on its own
  options.group = [&elections](int rank) {
    shm::GroupOptions group;
    group.allow_way = [rank, &elections](FdWay way) {
      if (rank % 2 == 0) return true;
      if (way == FdWay::kPathSocket) ++elections;
      return elections > 1 || (elections == 1 && way == FdWay::kProc);
    };
    return group;
  };
  run_processes(5, expecting({0, 1, 0, 1, 0}), options);
}

TEST(ShmGroup, WorksWhereMemfdIsRefused) {
  const std::vector<std::string> before = files_in("/dev/shm");
  RankOptions options;
  options.group = [](int) {
    shm::GroupOptions group;
    group.allow_memfd = false;
    return group;
  };
  run_processes(2, expecting({0, 0}), options);
  EXPECT_EQ(files_in("/dev/shm"), before);
}

// Groups that cannot be made fail on all ranks alike, with a text that holds `remedy`.
void expect_refusal(const std::function<void()>& before, const shm::GroupOptions& options,
                    const std::string& remedy) {
  Meeting meeting(2);
  for (int rank = 0; rank < 2; ++rank)
    if (::fork() == 0) {
      before();
      const std::unique_ptr<Bootstrap> bootstrap = meeting.join(rank);
      Result<std::shared_ptr<const Knobs>> knobs = Knobs::load();
      std::vector<PeerFacts> facts(2);
      facts[static_cast<size_t>(rank)] = gather_facts(rank, **knobs);
      (void)bootstrap->all_gather(facts.data(), sizeof(PeerFacts)).is_ok();
      Result<ShmGroup> group = shm::build_group(*bootstrap, facts, **knobs, options);
      const bool named = !group.is_ok() && group.status().code() == Code::kSystem &&
                         group.status().message().find(remedy) != std::string::npos;
      if (!named) fmt::print(stderr, "rank {}: {}\n", rank, group.status().to_string());
      ::_exit(named ? 0 : 1);
    }
  for (int rank = 0; rank < 2; ++rank) {
    int status = 0;
    ASSERT_GT(::wait(&status), 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
}

TEST(ShmGroup, ALimitOnFileSizesIsNamedOnEveryRank) {
  const auto limit_files = [] {
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  expect_refusal(limit_files, {}, "ulimit -f");
}

TEST(ShmGroup, AFullDevShmIsNamedWithItsRemedy) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting a small /dev/shm needs root";
  const auto shrink = [] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, "") != 0 ||
        ::mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") != 0)
      std::abort();
  };
  shm::GroupOptions options;
  options.allow_memfd = false;
  expect_refusal(shrink, options, "--shm-size");
}

TEST(ShmGroup, AKilledProcessLeavesNothingBehind) {
  const std::vector<std::string> shm_before = files_in("/dev/shm");
  run_processes(3,
                [](Rank& self) -> std::string {
                  Result<std::unique_ptr<SendChannel>> out =
                      self.group.transport->connect((self.rank + 1) % 3, 0);
                  RANK_OK(out.status());
                  RANK_OK(self.barrier());
                  ::kill(::getpid(), SIGKILL);
                  return "survived";
                },
                {}, {0, 1, 2});
  EXPECT_EQ(files_in("/dev/shm"), shm_before);
  for (const std::string& name : files_in("/tmp")) EXPECT_FALSE(name.starts_with(".libcomm-"));
}

TEST(ShmGroup, CountsItsChannelsAndWhatTheyHold) {
  run_threads(2, [](Rank& self) -> std::string {
    const TransportStats before = self.group.transport->stats();
    RANK_CHECK(before.channels == 0 && before.sockets == 0 && before.threads == 0);
    RANK_CHECK(before.host_bytes < (64u << 10));
    Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(1 - self.rank, 0);
    Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(1 - self.rank, 0);
    RANK_OK(out.status());
    RANK_OK(in.status());
    const TransportStats after = self.group.transport->stats();
    RANK_CHECK(after.channels == 2);
    RANK_CHECK(after.host_bytes >= before.host_bytes + (1u << 20));
    RANK_OK(self.barrier());
    return {};
  });
}

TEST(ShmGroup, ManyThreadsOpenChannelsToAllOthersWithoutTakingTheirMemory) {
  constexpr int kRanks = 48;
  run_threads(kRanks, [](Rank& self) -> std::string {
    std::vector<std::unique_ptr<SendChannel>> out;
    for (int peer = 0; peer < kRanks; ++peer) {
      if (peer == self.rank) continue;
      Result<std::unique_ptr<SendChannel>> channel = self.group.transport->connect(peer, 0);
      RANK_OK(channel.status());
      out.push_back(*std::move(channel));
    }
    RANK_OK(self.barrier());
    return {};
  });
}

}  // namespace
}  // namespace libcomm::testing
