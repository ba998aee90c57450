// A rank that is killed, stops, aborts or forks: what the others see, and what is left behind.
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/base/temp_folder.h"
#include "tests/faults/scene.h"

namespace faults {
namespace {

using world::Kind;
using world::Rank;
using world::World;

constexpr int kRanks = 3;
constexpr int kVictim = 1;

World over_shm() { return {.nranks = kRanks, .kind = Kind::kProcesses, .connected = false}; }

World over_sockets() {
  World world = over_shm();
  world.environment = {{"COMM_SHM_DISABLE", "1"}};
  return world;
}

World over_hosts() {
  World world = over_shm();
  world.hosts = {1, 1, 1};
  return world;
}

commResult_t sum(Rank& rank, std::vector<float>& data, cudaStream_t stream = nullptr) {
  return commAllReduce(data.data(), data.data(), data.size(), commFloat32, commSum, rank.comm,
                       stream);
}

void wait_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(100)); }

// The communicator failed because of the victim, and says so from now on.
void expect_victim_named(Rank& rank, commResult_t result, const char* call) {
  rank.expect_error(result, commRemoteError, {"rank 1"}, call, rank.comm);
  commResult_t state = commSuccess;
  COMM_OK(rank, commGetAsyncError(rank.comm, &state));
  rank.expect(state == commRemoteError, "commGetAsyncError does not tell of the death");
  float one = 1;
  rank.expect_error(commAllReduce(&one, &one, 1, commFloat32, commSum, rank.comm, nullptr),
                    commRemoteError, {"rank 1"}, "the next operation", rank.comm);
}

// How a survivor meets the death.
enum class Moment { kWaiting, kBusy, kBetween, kReceiving, kQueued };

void survive(Rank& rank, Moment moment) {
  std::vector<float> data(1 << 16, 1.0F);
  switch (moment) {
    case Moment::kWaiting:
      return expect_victim_named(rank, sum(rank, data), "all-reduce with a dead rank");
    case Moment::kBusy: {
      std::vector<float> many(1 << 20, 0.0F);
      commResult_t result = commSuccess;
      while (result == commSuccess) result = sum(rank, many);
      return expect_victim_named(rank, result, "all-reduce while a rank dies");
    }
    case Moment::kBetween:
      wait_a_little();
      wait_a_little();
      return expect_victim_named(rank, sum(rank, data), "all-reduce after a death");
    case Moment::kReceiving:
      return expect_victim_named(
          rank, commRecv(data.data(), data.size(), commFloat32, kVictim, rank.comm, nullptr),
          "commRecv from a dead rank");
    case Moment::kQueued: {
      cudaStream_t stream = nullptr;
      COMM_OK(rank, commHostStreamCreate(&stream));
      (void)sum(rank, data, stream);
      const commResult_t result = commHostStreamSynchronize(stream);
      rank.expect(result == commRemoteError,
                  "commHostStreamSynchronize gave " + std::to_string(result));
      expect_victim_named(rank, sum(rank, data), "all-reduce after a failed stream");
      (void)commHostStreamDestroy(stream);
      return;
    }
  }
}

// The victim may go: nobody is in the first operation any more, which the death may let fail.
void meet(const Rank& rank, Scene& scene) {
  ++scene.done;
  if (rank.rank == kVictim)
    await([&] { return scene.done == kRanks; }, "not all have ended the first operation");
}

// Large calls of one kind, again and again until the victim dies in one of them.
using Work = commResult_t (*)(Rank& rank, std::vector<float>& in, std::vector<float>& out);

constexpr size_t kBlock = 300'007;

commResult_t all_gather(Rank& rank, std::vector<float>& in, std::vector<float>& out) {
  return commAllGather(in.data(), out.data(), kBlock, commFloat32, rank.comm, nullptr);
}
commResult_t all_to_all(Rank& rank, std::vector<float>& in, std::vector<float>& out) {
  return commAlltoAll(in.data(), out.data(), kBlock, commFloat32, rank.comm, nullptr);
}
commResult_t scatter(Rank& rank, std::vector<float>& in, std::vector<float>& out) {
  return commScatter(in.data(), out.data(), kBlock, commFloat32, kVictim, rank.comm, nullptr);
}
commResult_t broadcast(Rank& rank, std::vector<float>& in, std::vector<float>&) {
  return commBcast(in.data(), kBlock, commFloat32, kVictim, rank.comm, nullptr);
}
commResult_t reduce_scatter(Rank& rank, std::vector<float>& in, std::vector<float>& out) {
  return commReduceScatter(in.data(), out.data(), kBlock, commFloat32, commMax, rank.comm, nullptr);
}
commResult_t all_reduce(Rank& rank, std::vector<float>& in, std::vector<float>& out) {
  return commAllReduce(in.data(), out.data(), kBlock, commFloat32, commMax, rank.comm, nullptr);
}

void lose_a_rank_in(Work work, World world) {
  Scene& scene = Scene::make();
  const std::set<std::string> names = shared_names();
  world.victims = {kVictim};
  world.timeout_seconds = 120;
  world::run(world, [&](Rank& rank) {
    const Holdings before = Holdings::now();
    join(rank, scene);
    std::vector<float> in(kRanks * kBlock, 1.0F), out(kRanks * kBlock);
    COMM_OK(rank, work(rank, in, out));
    meet(rank, scene);
    if (rank.rank == kVictim)
      std::thread([] {
        wait_a_little();
        die();
      }).detach();
    commResult_t result = commSuccess;
    while (result == commSuccess) result = work(rank, in, out);
    expect_victim_named(rank, result, "a large operation while a rank dies");
    end_clean(rank, before);
  });
  EXPECT_EQ(shared_names(), names);
}

void lose_a_rank(World world, Moment moment) {
  Scene& scene = Scene::make();
  const std::set<std::string> names = shared_names();
  world.victims = {kVictim};
  world.timeout_seconds = 120;
  world::run(world, [&](Rank& rank) {
    const Holdings before = Holdings::now();
    join(rank, scene);
    std::vector<float> data(1 << 16, 1.0F);
    COMM_OK(rank, sum(rank, data));
    meet(rank, scene);
    if (rank.rank != kVictim) {
      survive(rank, moment);
      return end_clean(rank, before);
    }
    if (moment == Moment::kBusy) {
      std::thread([] {
        wait_a_little();
        die();
      }).detach();
      std::vector<float> many(1 << 20, 0.0F);
      for (;;) (void)sum(rank, many);
    }
    if (moment != Moment::kBetween) wait_a_little();
    die();
  });
  EXPECT_EQ(shared_names(), names);
}

TEST(DeadRank, IsNamedToRanksThatWaitInSharedMemory) { lose_a_rank(over_shm(), Moment::kWaiting); }
TEST(DeadRank, IsNamedToRanksThatWaitOnSockets) { lose_a_rank(over_sockets(), Moment::kWaiting); }
TEST(DeadRank, IsNamedToRanksOfOtherHosts) { lose_a_rank(over_hosts(), Moment::kWaiting); }
TEST(DeadRank, IsNamedInTheMiddleOfLargeOperations) {
  lose_a_rank(over_shm(), Moment::kBusy);
  lose_a_rank(over_sockets(), Moment::kBusy);
  lose_a_rank(over_hosts(), Moment::kBusy);
}
TEST(DeadRank, IsNamedWhicheverWayLargeDataTakes) {
  for (const char* cma_disable : {"0", "1"}) {
    World world = over_shm();
    world.environment = {{"COMM_CMA_DISABLE", cma_disable}};
    for (const Work work : {all_gather, all_to_all, scatter, broadcast, reduce_scatter, all_reduce})
      lose_a_rank_in(work, world);
  }
}
TEST(DeadRank, IsNamedByTheNextOperation) {
  lose_a_rank(over_shm(), Moment::kBetween);
  lose_a_rank(over_sockets(), Moment::kBetween);
  lose_a_rank(over_hosts(), Moment::kBetween);
}
TEST(DeadRank, EndsAReceive) {
  lose_a_rank(over_shm(), Moment::kReceiving);
  lose_a_rank(over_sockets(), Moment::kReceiving);
}
TEST(DeadRank, EndsAHostStream) {
  lose_a_rank(over_shm(), Moment::kQueued);
  lose_a_rank(over_hosts(), Moment::kQueued);
}

// A child by the bare system call, past pthread_atfork: it keeps every socket of its parent open,
// so that no connection of the dead rank ends.
TEST(DeadRank, IsNoticedThoughAChildKeepsItsSockets) {
  for (World world : {over_shm(), over_sockets()}) {
    Scene& scene = Scene::make();
    world.victims = {kVictim};
    world.timeout_seconds = 120;
    world::run(world, [&](Rank& rank) {
      join(rank, scene);
      std::vector<float> data(1000, 1.0F);
      COMM_OK(rank, sum(rank, data));
      meet(rank, scene);
      if (rank.rank != kVictim) {
        await([&] { return scene.flag != 0; }, "the victim had no child");
        expect_victim_named(rank, sum(rank, data), "all-reduce with a dead rank");
        return end_clean(rank, {1 << 20, 1 << 20});
      }
      const long child = syscall(SYS_fork);
      if (child == 0) {
        // Only its pipes, for which the harness waits, are closed.
        for (int fd = 0; fd < 1024; ++fd) {
          struct stat info;
          if (fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode)) syscall(SYS_close, fd);
        }
        for (;;) pause();
      }
      scene.flag = static_cast<int>(child);
      wait_a_little();
      die();
    });
    ASSERT_GT(scene.flag, 0);
    kill(scene.flag, SIGKILL);
  }
}

bool has_stopped(pid_t pid) {
  const std::string stat = libcomm::test::read_file("/proc/" + std::to_string(pid) + "/stat");
  return stat.find(") T ") != std::string::npos;
}

// The new communicator numbers the ranks the other way round: wherever in its making the victim
// dies, others are told the number that they know.
TEST(DeadRank, IsNamedToRanksThatSplit) {
  for (int round = 0; round < 6; ++round) {
    World world = {.nranks = 4, .kind = Kind::kProcesses, .connected = false};
    world.victims = {kVictim};
    Scene& scene = Scene::make();
    world::run(world, [&](Rank& rank) {
      const Holdings before = Holdings::now();
      join(rank, scene);
      rank.meet();
      std::thread killer;
      if (rank.rank == kVictim)
        killer = std::thread([round] {
          std::this_thread::sleep_for(std::chrono::milliseconds(20) +
                                      round * std::chrono::microseconds(1300));
          die();
        });
      for (;;) {
        comm_t child = nullptr;
        const commResult_t result = commSplit(rank.comm, 0, -rank.rank, &child, nullptr);
        if (result == commSuccess) {
          COMM_OK(rank, commDestroy(child));
          continue;
        }
        if (rank.rank == kVictim) killer.join();
        rank.expect_error(result, commRemoteError, {"rank 1 ("}, "commSplit", rank.comm);
        return end_clean(rank, before);
      }
    });
  }
}

// A communicator tells of one death only: that one more rank is gone, those who go on without the
// first one find out when they make their new group. Rank 0 waits for rank 2 there; rank 3, which
// waits for rank 0, hears it from that.
TEST(DeadRank, BesideTheOneThatIsLeftOutIsNamedByShrink) {
  for (const char* shm_disable : {"0", "1"}) {
    World world = {.nranks = 4, .kind = Kind::kProcesses, .connected = false};
    world.victims = {1, 2};
    world.environment = {{"COMM_SHM_DISABLE", shm_disable}, {"COMM_BOOTSTRAP_TIMEOUT", "60"}};
    Scene& scene = Scene::make();
    world::run(world, [&](Rank& rank) {
      const Holdings before = Holdings::now();
      join(rank, scene);
      rank.meet();
      if (rank.rank == kVictim) die();
      std::vector<float> data(100, 1.0F);
      rank.expect_error(sum(rank, data), commRemoteError, {"rank 1"},
                        "an all-reduce with a dead rank", rank.comm);
      ++scene.done;
      if (rank.rank == 2) {
        await([&] { return scene.done == 3; }, "not all have heard of the first death");
        die();
      }
      int excluded = kVictim;
      comm_t rest = nullptr;
      rank.expect_error(commShrink(rank.comm, &excluded, 1, &rest, nullptr, COMM_SHRINK_ABORT),
                        commRemoteError, {"rank 2", "is gone"}, "commShrink", rank.comm);
      rank.expect(rest == nullptr, "a failed commShrink left a handle");
      end_clean(rank, before);
    });
  }
}

// The second death, wherever in the making of the new communicator: its ranks number the victim 1,
// and the caller knows it as 2.
TEST(DeadRank, AfterAnotherOneIsNamedToRanksThatShrink) {
  for (int round = 0; round < 4; ++round) {
    World world = {.nranks = 4, .kind = Kind::kProcesses, .connected = false};
    world.victims = {0, 2};
    Scene& scene = Scene::make();
    world::run(world, [&](Rank& rank) {
      const Holdings before = Holdings::now();
      join(rank, scene);
      rank.meet();
      if (rank.rank == 0) die();
      std::vector<float> data(100, 1.0F);
      rank.expect_error(sum(rank, data), commRemoteError, {"rank 0"},
                        "an all-reduce with a dead rank", rank.comm);
      std::thread killer;
      if (rank.rank == 2)
        killer = std::thread([round] {
          std::this_thread::sleep_for(std::chrono::milliseconds(20) +
                                      round * std::chrono::microseconds(1300));
          die();
        });
      for (;;) {
        int excluded = 0;
        comm_t rest = nullptr;
        const commResult_t result =
            commShrink(rank.comm, &excluded, 1, &rest, nullptr, COMM_SHRINK_ABORT);
        if (result == commSuccess) {
          COMM_OK(rank, commDestroy(rest));
          continue;
        }
        if (rank.rank == 2) killer.join();
        rank.expect_error(result, commRemoteError, {"rank 2"}, "commShrink", rank.comm);
        return end_clean(rank, before);
      }
    });
  }
}

// Its first operation is the one that waits: nothing else has to keep the short deadline.
TEST(StoppedRank, RunsIntoTheDeadlineOfTheOthers) {
  Scene& scene = Scene::make();
  World world = over_shm();
  world.environment = {{"COMM_TIMEOUT", "1"}};
  world::run(world, [&](Rank& rank) {
    const Holdings before = Holdings::now();
    join(rank, scene);
    std::vector<float> data(1000, 1.0F);
    if (rank.rank == kVictim) {
      raise(SIGSTOP);
      // What the others had put in place before they gave up may still make one operation whole.
      commResult_t result = commSuccess;
      while (result == commSuccess) result = sum(rank, data);
      rank.expect(result == commRemoteError || result == commSystemError,
                  "the stopped rank goes on with " + std::to_string(result));
    } else {
      await([&] { return has_stopped(scene.pids[kVictim]); }, "the victim does not stop");
      // The rank that runs out of time first ends the others' waits.
      const commResult_t result = sum(rank, data);
      rank.expect(result == commSystemError || result == commRemoteError,
                  "waiting for a stopped rank gave " + std::to_string(result));
      const std::string text = commGetLastError(rank.comm);
      rank.expect(text.find("no progress for 1") != std::string::npos, "not the deadline: " + text);
      rank.expect(text.find("COMM_TIMEOUT") != std::string::npos, "no remedy: " + text);
      if (++scene.done == kRanks - 1) kill(scene.pids[kVictim], SIGCONT);
    }
    end_clean(rank, before);
  });
}

// Does a socket of this process hold bytes that its peer has no room for?
bool has_unsent_bytes() {
  for (int fd = 0; fd < 1024; ++fd) {
    int bytes = 0;
    if (ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes >= 64 << 10) return true;
  }
  return false;
}

TEST(StoppedRank, IsNamedInTheMiddleOfItsMessage) {
  Scene& scene = Scene::make();
  World world = over_sockets();
  world.nranks = 2;
  world.environment.push_back({"COMM_TIMEOUT", "1"});
  world::run(world, [&](Rank& rank) {
    constexpr size_t kMoreThanSocketsHold = 16 << 20;
    std::vector<float> data(kMoreThanSocketsHold, 1.0F);
    if (rank.rank == kVictim) {
      setenv("COMM_TIMEOUT", "60", 1);
      join(rank, scene);
      cudaStream_t stream = nullptr;
      COMM_OK(rank, commHostStreamCreate(&stream));
      COMM_OK(rank, commBcast(data.data(), data.size(), commFloat32, kVictim, rank.comm, stream));
      await(has_unsent_bytes, "the victim's message does not go out");
      raise(SIGSTOP);
      (void)commHostStreamSynchronize(stream);
      (void)commHostStreamDestroy(stream);
    } else {
      join(rank, scene);
      await([&] { return has_stopped(scene.pids[kVictim]); }, "the victim does not stop");
      rank.expect_error(
          commBcast(data.data(), data.size(), commFloat32, kVictim, rank.comm, nullptr),
          commSystemError, {"waiting for rank 1: no progress for 1"}, "commBcast", rank.comm);
      kill(scene.pids[kVictim], SIGCONT);
    }
    COMM_OK(rank, commAbort(rank.comm));
    rank.comm = nullptr;
  });
}

TEST(AbortingRank, EndsTheWaitsOfAllOthersAndIsNamed) {
  for (const World& world : {over_shm(), over_sockets()}) {
    Scene& scene = Scene::make();
    world::run(world, [&](Rank& rank) {
      const Holdings before = Holdings::now();
      join(rank, scene);
      std::vector<float> data(1000, 1.0F);
      COMM_OK(rank, sum(rank, data));
      meet(rank, scene);
      if (rank.rank == kVictim) {
        wait_a_little();
      } else {
        expect_victim_named(rank, sum(rank, data), "all-reduce with an aborting rank");
      }
      end_clean(rank, before);
    });
  }
}

// Ranks of one process use each other's memory. When an operation fails, each gets its own back
// before it returns: no other touches it any more.
TEST(AbortingThread, HasItsMemoryForItselfAgain) {
  constexpr size_t kBytes = kRanks * kBlock * sizeof(float);
  for (const Work work : {all_gather, all_to_all, reduce_scatter, all_reduce}) {
    for (int i = 0; i < (world::kSanitized ? 2 : 10); ++i) {
      world::run({.nranks = kRanks}, [&](Rank& rank) {
        std::vector<float> in(kRanks * kBlock, 1.0F), out(kRanks * kBlock);
        COMM_OK(rank, work(rank, in, out));
        std::thread aborts;
        if (rank.rank == kVictim)
          aborts = std::thread([&] {
            std::this_thread::sleep_for(std::chrono::microseconds(1500 + 311 * i));
            COMM_OK(rank, commRevoke(rank.comm, 0));
          });
        commResult_t result = commSuccess;
        while (result == commSuccess) result = work(rank, in, out);
        // Whoever still reads or writes here now stops the process.
        const auto protect = [&](std::vector<float>& data, int how) {
          const auto begin = (reinterpret_cast<uintptr_t>(data.data()) + 4095) / 4096 * 4096;
          return mprotect(reinterpret_cast<void*>(begin), kBytes / 4096 * 4096 - 4096, how);
        };
        rank.expect(protect(in, PROT_NONE) == 0 && protect(out, PROT_NONE) == 0, "mprotect failed");
        wait_a_little();
        rank.expect(
            protect(in, PROT_READ | PROT_WRITE) == 0 && protect(out, PROT_READ | PROT_WRITE) == 0,
            "mprotect failed");
        if (aborts.joinable()) aborts.join();
      });
    }
  }
}

TEST(ForkedChild, HasNoCommunicatorAndDisturbsNobody) {
  for (const World& world : {over_shm(), over_sockets()}) {
    Scene& scene = Scene::make();
    world::run(world, [&](Rank& rank) {
      join(rank, scene);
      std::vector<float> data(1000, 1.0F);
      COMM_OK(rank, sum(rank, data));
      const pid_t child = fork();
      rank.require(child >= 0, "fork failed");
      if (child == 0) {
        const bool refused =
            sum(rank, data) == commInvalidUsage &&
            std::string(commGetLastError(nullptr)).find("fork") != std::string::npos;
        _exit(refused ? 0 : 1);
      }
      COMM_OK(rank, sum(rank, data));
      int status = 0;
      waitpid(child, &status, 0);
      rank.expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child could use the handle");
      data.assign(data.size(), 1.0F);
      COMM_OK(rank, sum(rank, data));
      rank.expect(data[0] == kRanks && data[999] == kRanks, "a wrong sum after the fork");
      COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    });
  }
}

}  // namespace
}  // namespace faults
