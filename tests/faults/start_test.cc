// Groups that cannot assemble, or assemble under difficulties: missing and dying ranks, strangers
// at the door, wrong secrets, stale ids, and an operating system that refuses memory or
// descriptors.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/base/temp_folder.h"
#include "tests/faults/scene.h"

namespace faults {
namespace {

using world::Kind;
using world::Rank;
using world::World;

World processes(int nranks) {
  return {.nranks = nranks, .kind = Kind::kProcesses, .connected = false, .timeout_seconds = 120};
}

void sum_ones(Rank& rank, size_t count = 5000) {
  std::vector<float> data(count, 1.0F);
  COMM_OK(rank,
          commAllReduce(data.data(), data.data(), count, commFloat32, commSum, rank.comm, nullptr));
  const float wanted = static_cast<float>(rank.nranks);
  rank.expect(data.front() == wanted && data.back() == wanted, "a wrong sum");
}

void leave(Rank& rank) { COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr))); }

// Makes an id whose server gives up after `seconds` from the first rank on. The ranks themselves
// have more time: however slow the machine, it is the server that speaks.
void make_id(Rank& rank, Scene& scene, const char* seconds) {
  const world::ScopedEnvironment environment(
      world::Environment{{"COMM_BOOTSTRAP_TIMEOUT", seconds}});
  COMM_OK(rank, commGetUniqueId(&scene.id));
  scene.have_id = 1;
}

// In the process that serves the id, and in another one. The rank is alone: a second one might come
// after the server's time.
TEST(MissingRank, IsNamedWhenTheTimeIsOver) {
  for (const int present : {0, 1}) {
    Scene& scene = Scene::make();
    world::run(processes(2), [&](Rank& rank) {
      const Holdings before = Holdings::now();
      if (rank.rank == 0) make_id(rank, scene, "1");
      if (rank.rank == present) {
        await([&] { return scene.have_id == 1; }, "rank 0 made no id");
        const commResult_t result = commInitRank(&rank.comm, 3, scene.id, present);
        rank.expect_error(result, commSystemError,
                          {present == 0 ? "rank 1, 2" : "rank 0, 2", "COMM_BOOTSTRAP_TIMEOUT"},
                          "commInitRank without the others");
        rank.expect(rank.comm == nullptr, "a failed commInitRank left a handle");
        ++scene.done;
      }
      await([&] { return scene.done == 1; }, "the rank still waits for the others");
      end_clean(rank, before);
    });
  }
}

// The process that serves the id stands still until all its times are over: it tells the others
// all the same when it goes on.
TEST(MissingRank, IsNamedByAServerThatStoodStill) {
  Scene& scene = Scene::make();
  world::run(processes(3), [&](Rank& rank) {
    scene.pids[rank.rank] = getpid();
    if (rank.rank == 0) make_id(rank, scene, "1.5");
    await([&] { return scene.have_id == 1; }, "rank 0 made no id");
    if (rank.rank == 1) {
      ++scene.ready;
      const commResult_t result = commInitRank(&rank.comm, rank.nranks, scene.id, rank.rank);
      rank.expect_error(result, commSystemError, {"rank 0, 2", "COMM_BOOTSTRAP_TIMEOUT"},
                        "commInitRank without the others");
      ++scene.done;
    } else if (rank.rank == 2) {
      await([&] { return scene.ready == 1; }, "rank 1 did not begin");
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      kill(scene.pids[0], SIGSTOP);
      std::this_thread::sleep_for(std::chrono::milliseconds(1500));
      kill(scene.pids[0], SIGCONT);
    }
    await([&] { return scene.done == 1; }, "rank 1 still waits for the others");
  });
}

TEST(DyingRank, EndsTheAssemblyOfTheOthers) {
  Scene& scene = Scene::make();
  const libcomm::test::TempFolder folder;
  World world = processes(4);
  world.victims = {3};
  // The server of the id writes who has come.
  world.environment = {{"COMM_DEBUG", "INFO"},
                       {"COMM_DEBUG_SUBSYS", "BOOTSTRAP"},
                       {"COMM_DEBUG_FILE", folder / "log.%p"}};
  world::run(world, [&](Rank& rank) {
    // The others wait for rank 2, which does not come before rank 3 is dead.
    if (rank.rank == 2) {
      await([&] { return scene.have_id == 1; }, "rank 0 made no id");
      const std::string log = folder / "log." + std::to_string(scene.pids[0]);
      for (const char* who : {"rank 0", "rank 1", "rank 3"})
        await(
            [&] {
              return libcomm::test::read_file(log).find(who + std::string(" of 4 reported")) !=
                     std::string::npos;
            },
            who);
      kill(scene.pids[3], SIGKILL);
      await([&] { return scene.done == 2; }, "the others still wait for a dead rank");
      setenv("COMM_BOOTSTRAP_TIMEOUT", "3", 1);
    }
    Holdings before = Holdings::now();
    ++before.descriptors;  // the log
    const commResult_t result = try_join(rank, scene);
    rank.expect(result == commRemoteError || (rank.rank == 2 && result == commSystemError),
                "commInitRank with a dying rank gave " + std::to_string(result) + ": " +
                    commGetLastError(nullptr));
    if (rank.rank < 2)
      rank.expect(std::string(commGetLastError(nullptr)).find("rank 3") != std::string::npos,
                  std::string("rank 3 is not named: ") + commGetLastError(nullptr));
    ++scene.done;
    end_clean(rank, before);
  });
}

// The ports on which this process listens: the sockets in /proc/net whose inode is among its own.
std::vector<std::pair<int, int>> listening_ports() {
  std::set<std::string> mine;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    mine.insert(std::filesystem::read_symlink(entry.path(), code).string());
  std::vector<std::pair<int, int>> ports;
  for (const auto& [file, family] :
       {std::pair("/proc/net/tcp", AF_INET), std::pair("/proc/net/tcp6", AF_INET6)}) {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    while (std::getline(in, line)) {
      std::istringstream words(line);
      std::vector<std::string> word;
      for (std::string each; words >> each;) word.push_back(each);
      if (word.size() < 10 || word[3] != "0A" || !mine.contains("socket:[" + word[9] + "]"))
        continue;
      ports.emplace_back(family, std::stoi(word[1].substr(word[1].find(':') + 1), nullptr, 16));
    }
  }
  return ports;
}

// A connection over the loopback interface to `port`.
int knock(int family, int port) {
  for (const char* address : {"127.0.0.1", "::1"}) {
    sockaddr_storage to{};
    socklen_t length = sizeof(sockaddr_in);
    if (family == AF_INET) {
      auto* v4 = reinterpret_cast<sockaddr_in*>(&to);
      if (inet_pton(AF_INET, address, &v4->sin_addr) != 1) continue;
      v4->sin_port = htons(static_cast<uint16_t>(port));
    } else {
      auto* v6 = reinterpret_cast<sockaddr_in6*>(&to);
      if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1) continue;
      v6->sin6_port = htons(static_cast<uint16_t>(port));
      length = sizeof(sockaddr_in6);
    }
    to.ss_family = static_cast<sa_family_t>(family);
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&to), length) == 0) return fd;
    if (fd >= 0) close(fd);
  }
  return -1;
}

TEST(Strangers, AtTheDoorDoNotStopAGroup) {
  Scene& scene = Scene::make();
  World world = processes(4);
  world.environment = {{"COMM_SOCKET_IFNAME", "=lo"}};
  world::run(world, [&](Rank& rank) {
    std::vector<int> strangers;
    if (rank.rank == 0) {
      COMM_OK(rank, commGetUniqueId(&scene.id));
      const auto ports = listening_ports();
      rank.expect(!ports.empty(), "the process that serves an id listens nowhere");
      for (const auto& [family, port] : ports) {
        for (int i = 0; i < 12; ++i) {
          const int fd = knock(family, port);
          rank.expect(fd >= 0, "cannot connect to port " + std::to_string(port));
          if (fd < 0) continue;
          strangers.push_back(fd);
          // A third keeps silent, a third sends noise, a third sends an endless request.
          std::string noise = "GET / HTTP/1.1\r\n";
          for (int k = 0; k < 500; ++k) noise += static_cast<char>(k * i * 31 + i);
          if (i % 3 != 0) (void)!send(fd, noise.data(), noise.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
          if (i % 3 == 2) shutdown(fd, SHUT_WR);
        }
      }
      scene.have_id = 1;
    }
    await([&] { return scene.have_id == 1; }, "rank 0 made no id");
    COMM_OK(rank, commInitRank(&rank.comm, rank.nranks, scene.id, rank.rank));
    sum_ones(rank);
    leave(rank);
    for (const int fd : strangers) close(fd);
  });
}

// Strangers that stay take neither the descriptors of the process nor the group's place at the
// door: there are more of them than the process may have descriptors.
TEST(Strangers, DoNotTakeTheDescriptorsOfTheProcess) {
  constexpr int kVisits = 150;
  Scene& scene = Scene::make();
  World world = processes(3);
  world.environment = {{"COMM_SOCKET_IFNAME", "=lo"}};
  world::run(world, [&](Rank& rank) {
    pid_t crowd = -1;
    if (rank.rank == 0) {
      rlimit limit{};
      getrlimit(RLIMIT_NOFILE, &limit);
      const rlim_t many = std::exchange(limit.rlim_cur, 64);
      rank.expect(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit failed");
      COMM_OK(rank, commGetUniqueId(&scene.id));
      const auto ports = listening_ports();
      rank.expect(!ports.empty(), "the process that serves an id listens nowhere");
      crowd = fork();
      if (crowd == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        limit.rlim_cur = many;
        setrlimit(RLIMIT_NOFILE, &limit);
        for (int i = 0; i < kVisits; ++i)
          for (const auto& [family, port] : ports) (void)knock(family, port);
        scene.flag = 1;
        pause();
        _exit(0);
      }
      await([&] { return scene.flag == 1; }, "the strangers do not come in");
      scene.have_id = 1;
    }
    await([&] { return scene.have_id == 1; }, "rank 0 made no id");
    COMM_OK(rank, commInitRank(&rank.comm, rank.nranks, scene.id, rank.rank));
    sum_ones(rank);
    leave(rank);
    if (crowd > 0) {
      kill(crowd, SIGKILL);
      waitpid(crowd, nullptr, 0);
    }
  });
}

// And it disturbs nobody: with the right one the rank is let in.
TEST(WrongSecret, IsRefusedAndSaysSo) {
  World world = processes(3);
  world.environment = {{"COMM_ID", world::free_address()}, {"COMM_NRANKS", "3"}};
  world::run(world, [&](Rank& rank) {
    setenv("COMM_RANK", std::to_string(rank.rank).c_str(), 1);
    if (rank.rank == 2) {
      setenv("COMM_SECRET", "guessed", 1);
      const Holdings before = Holdings::now();
      rank.expect_error(commInitFromLauncher(&rank.comm), commSystemError, {"COMM_SECRET"},
                        "commInitFromLauncher with a wrong secret");
      end_clean(rank, before);
    }
    setenv("COMM_SECRET", "right", 1);
    COMM_OK(rank, commInitFromLauncher(&rank.comm));
    sum_ones(rank);
    leave(rank);
  });
}

TEST(StaleId, EndsWithATextAndInTime) {
  Scene& scene = Scene::make();
  const pid_t child = fork();
  if (child == 0) _exit(commGetUniqueId(&scene.id) == commSuccess ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  World world = processes(1);
  world.environment = {{"COMM_BOOTSTRAP_TIMEOUT", "1"}};
  world::run(world, [&](Rank& rank) {
    const Holdings before = Holdings::now();
    rank.expect_error(commInitRank(&rank.comm, 2, scene.id, 1), commSystemError,
                      {"cannot reach", "is rank 0 running there"}, "commInitRank with a stale id");
    end_clean(rank, before);
  });
}

TEST(NoSpaceInDevShm, IsWorkedRoundOrNamed) {
  if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0)
    GTEST_SKIP() << "needs root, to mount a small /dev/shm where nobody else sees it";
  ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(mount("none", "/dev/shm", "tmpfs", 0, "size=64k"), 0);
  Scene& scene = Scene::make();
  world::run(processes(2), [&](Rank& rank) {
    const commResult_t result = try_join(rank, scene);
    if (result != commSuccess)
      return rank.expect_error(result, commSystemError, {"/dev/shm"}, "commInitRank");
    sum_ones(rank, 1 << 20);
    leave(rank);
  });
  EXPECT_EQ(umount2("/dev/shm", MNT_DETACH), 0);
}

TEST(NoLockedMemory, IsNotNeeded) {
  Scene& scene = Scene::make();
  world::run(processes(2), [&](Rank& rank) {
    const rlimit none{0, 0};
    rank.require(setrlimit(RLIMIT_MEMLOCK, &none) == 0, "setrlimit failed");
    join(rank, scene);
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 1 << 20));
    COMM_OK(rank, commAllReduce(memory, memory, 1 << 18, commFloat32, commSum, rank.comm, nullptr));
    sum_ones(rank, 1 << 20);
    leave(rank);
    COMM_OK(rank, commMemFree(memory));
  });
}

// Tells the server of the id that no group comes about: the other rank need not wait for its time.
void end_assembly(const Scene& scene) {
  rlimit limit{};
  (void)getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
  setenv("COMM_BOOTSTRAP_TIMEOUT", "1", 1);
  comm_t none = nullptr;
  (void)commInitRank(&none, 3, scene.id, 2);  // of another size
}

// Every limit between "nothing opens" and "enough": a text at each rank or a group that works,
// never a wait for the time limit.
TEST(FewDescriptors, EndWithATextAndLeaveNothing) {
  std::atomic<int>& refused = Scene::make().flag;
  for (const int spare : {0, 3, 8, 13, 24}) {
    Scene& scene = Scene::make();
    World world = processes(2);
    world.environment = {{"COMM_SHM_DISABLE", spare % 2 == 0 ? "0" : "1"}};
    world::run(world, [&](Rank& rank) {
      const Holdings before = Holdings::now();
      if (rank.rank == 1) {
        rlimit few{};
        rank.require(getrlimit(RLIMIT_NOFILE, &few) == 0, "getrlimit failed");
        // The counting itself opened one more.
        few.rlim_cur = static_cast<rlim_t>(before.descriptors - 1 + spare);
        rank.require(setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit failed");
      }
      const commResult_t result = try_join(rank, scene);
      if (result == commSuccess) {
        float one = 1;
        if (commAllReduce(&one, &one, 1, commFloat32, commSum, rank.comm, nullptr) == commSuccess)
          rank.expect(one == 2, "a wrong sum");
        else
          rank.expect(commGetLastError(rank.comm)[0] != '\0', "an error without a text");
      } else {
        ++refused;
        const std::string text = commGetLastError(nullptr);
        rank.expect(result == commSystemError || result == commRemoteError ||
                        (rank.rank == 0 && result == commInvalidUsage),
                    "commInitRank gave " + std::to_string(result) + ": " + text);
        if (rank.rank == 1) {
          rank.expect(text.find("open files") != std::string::npos ||
                          text.find("ulimit -n") != std::string::npos,
                      "the text does not speak of descriptors: " + text);
          end_assembly(scene);
        }
      }
      if (rank.comm != nullptr) (void)commAbort(std::exchange(rank.comm, nullptr));
    });
  }
  EXPECT_GT(refused, 0) << "no limit was small enough";
}

TEST(UnknownInterface, IsNamedWithThoseThatExist) {
  World world = processes(1);
  world.environment = {{"COMM_SOCKET_IFNAME", "nosuch"}};
  world::run(world, [](Rank& rank) {
    rank.expect_error(commGetUniqueId(&rank.id), commSystemError,
                      {"COMM_SOCKET_IFNAME", "nosuch", "lo"}, "commGetUniqueId");
  });
}

TEST(OpenGroup, OfAThreadThatEndsIsForgotten) {
  Scene& scene = Scene::make();
  world::run(processes(2), [&](Rank& rank) {
    join(rank, scene);
    std::thread([&] {
      float one = 1;
      rank.expect(commGroupStart() == commSuccess, "commGroupStart failed");
      rank.expect(
          commAllReduce(&one, &one, 1, commFloat32, commSum, rank.comm, nullptr) == commSuccess,
          "the call was not collected");
    }).join();
    sum_ones(rank);
    leave(rank);
  });
}

}  // namespace
// Last: this process serves the ids itself, and ThreadSanitizer follows no fork after that.
// Its server ends soon after the ranks have been told, though one more rank might come.
TEST(WrongNumberOfRanks, IsNamedAndLeavesNothing) {
  const world::ScopedEnvironment environment(world::Environment{{"COMM_BOOTSTRAP_TIMEOUT", "10"}});
  commUniqueId id{};
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  commUniqueId last{};  // one descriptor stays until the next id is made
  ASSERT_EQ(commGetUniqueId(&last), commSuccess);
  const Holdings before = Holdings::now();
  const auto join_as = [](const commUniqueId& where, int nranks, int rank) {
    comm_t comm = nullptr;
    EXPECT_EQ(commInitRank(&comm, nranks, where, rank), commInvalidUsage);
    const std::string text = commGetLastError(nullptr);
    EXPECT_NE(text.find("2"), std::string::npos) << text;
    EXPECT_NE(text.find("3"), std::string::npos) << text;
    EXPECT_NE(text.find("nranks"), std::string::npos) << text;
  };
  for (const commUniqueId& each : {id, last}) {
    std::thread other([&] { join_as(each, 3, 1); });
    join_as(each, 2, 0);
    other.join();
  }
  Holdings after = Holdings::now();
  for (int i = 0; i < 6000 && after.threads >= before.threads; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    after = Holdings::now();
  }
  EXPECT_LT(after.threads, before.threads);
  EXPECT_LT(after.descriptors, before.descriptors);
}

}  // namespace faults
