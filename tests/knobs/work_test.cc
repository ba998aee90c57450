// Knobs that change how operations are done. Suites are named after the knob they are about;
// table_test.cc looks whether every knob has one.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/knobs/looking.h"

namespace knobs {
namespace {

// Rings, so that lanes and channels show what is set.
Environment rings(const Environment& more) {
  Environment all = {{"COMM_ALGO", "ring"}, {"COMM_SINGLE_RING_THRESHOLD", "0"}};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST(MIN_NRINGS, OpensAsManyChannelsPerPeerAsThereAreLanes) {
  const Look one = look(rings({}));
  const Look three = look(rings({{"COMM_MIN_NRINGS", "3"}}));
  ASSERT_GT(one.stats.channels, 0);
  EXPECT_EQ(three.stats.channels, 3 * one.stats.channels);
}

TEST(MAX_NRINGS, CapsTheLanes) {
  const Look one = look(rings({}));
  const Look two = look(rings({{"COMM_MIN_NRINGS", "3"}, {"COMM_MAX_NRINGS", "2"}}));
  EXPECT_EQ(two.stats.channels, 2 * one.stats.channels);
}

TEST(MAX_CTAS, CapsTheLanes) {
  const Look one = look(rings({}));
  const Look two = look(rings({{"COMM_MIN_NRINGS", "3"}, {"COMM_MAX_CTAS", "2"}}));
  EXPECT_EQ(two.stats.channels, 2 * one.stats.channels);
}

TEST(SINGLE_RING_THRESHOLD, KeepsSmallMessagesOnOneLane) {
  const Environment lanes = {{"COMM_ALGO", "ring"}, {"COMM_MIN_NRINGS", "3"}};
  Environment low = lanes, high = lanes;
  low.emplace_back("COMM_SINGLE_RING_THRESHOLD", "3999");
  high.emplace_back("COMM_SINGLE_RING_THRESHOLD", "4000");
  EXPECT_TRUE(contains(look(low, 1000).log, "3 lanes"));
  EXPECT_TRUE(contains(look(high, 1000).log, "1 lanes"));
}

TEST(BUFFSIZE, ChangesTheSegments) {
  const auto segment = [](const std::string& log) {
    const std::string before = "segments of ";
    const size_t at = log.find(before);
    return at == std::string::npos ? 0 : std::stoi(log.substr(at + before.size()));
  };
  const Environment sockets = {{"COMM_SHM_DISABLE", "1"}};
  Environment small = sockets;
  small.emplace_back("COMM_BUFFSIZE", "64K");
  for (const auto& [normal, less] : {std::pair(look({}), look({{"COMM_BUFFSIZE", "64K"}})),
                                     std::pair(look(sockets), look(small))}) {
    ASSERT_GT(segment(less.log), 0) << less.log;
    EXPECT_LT(segment(less.log), segment(normal.log));
  }
}

TEST(ALGO, ChoosesPerCollective) {
  const auto gather = [](Rank& rank) {
    std::vector<float> data = uneven(rank.rank, 1000), all(3000);
    sum(rank, data);
    COMM_OK(rank, commAllGather(data.data(), all.data(), 1000, commFloat32, rank.comm, nullptr));
  };
  const std::string both = look_at({{"COMM_ALGO", "ring"}}, 3, gather).log;
  EXPECT_TRUE(contains(both, "allreduce of 1000 x float32: ring")) << both;
  EXPECT_TRUE(contains(both, "allgather of 1000 x float32: ring")) << both;
  const std::string each = look_at({{"COMM_ALGO", "allreduce:rd;allgather:bruck"}}, 3, gather).log;
  EXPECT_TRUE(contains(each, "allreduce of 1000 x float32: rd")) << each;
  EXPECT_TRUE(contains(each, "allgather of 1000 x float32: bruck")) << each;
}

TEST(ALGO, RefusesAnUnknownName) {
  world::run({.nranks = 1, .environment = {{"COMM_ALGO", "zigzag"}}, .connected = false},
             [](Rank& rank) {
               COMM_FAILS(rank, commInitFromLauncher(&rank.comm), commInvalidArgument, "COMM_ALGO",
                          "zigzag", "ring");
             });
}

TEST(LL_THRESHOLD, DividesOneshotFromTwoshot) {
  // Each of two ranks publishes 4000 bytes.
  EXPECT_TRUE(contains(look({{"COMM_LL_THRESHOLD", "4000"}}).log, ": oneshot"));
  EXPECT_TRUE(contains(look({{"COMM_LL_THRESHOLD", "3999"}}).log, ": twoshot"));
}

TEST(TUNER_FILE, ChoosesForAllRanksFromRankZerosFile) {
  const Folder folder;
  write_file(folder / "table",
             "libcomm tuning table 1: a machine\n"
             "# large sums around a ring\n"
             "allreduce, 4000, *, 2, 1, memory, ring, *, *, 8.5\n");
  // Only rank 0 can read it, and only rank 0 names it.
  Launch start;
  start.settings = [&](int rank) {
    return Environment{{"COMM_DEBUG", "INFO"},
                       {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))},
                       {"COMM_TUNER_FILE", rank == 0 ? folder / "table" : ""}};
  };
  launch(start, [](Rank& rank) {
    std::vector<float> small(999, 1.0F), large(1000, 1.0F);
    sum(rank, small);
    sum(rank, large);
    rank.expect(small[0] == 2 && large[0] == 2, "a wrong sum");
  });
  for (const char* file : {"log0", "log1"}) {
    const std::string log = read_file(folder / file);
    EXPECT_TRUE(contains(log, "allreduce of 1000 x float32: ring")) << log;
    EXPECT_TRUE(contains(log, "table, line 3 (measured 8.5 us)")) << log;
    EXPECT_TRUE(contains(log, "allreduce of 999 x float32: oneshot")) << log;
    EXPECT_TRUE(contains(log, "because: the cost model")) << log;
  }
}

TEST(TUNER_FILE, AFileThatIsWrongFailsOnAllRanks) {
  const Folder folder;
  write_file(folder / "wrong", "libcomm tuning table 1: a machine\nallreduce, 1, 2\n");
  for (const auto& [file, part] : {std::pair("missing", "No such file"), {"wrong", "line 2"}}) {
    Launch start;
    start.settings = [&](int rank) {
      return Environment{{"COMM_TUNER_FILE", rank == 0 ? folder / file : ""}};
    };
    start.init = [&](Rank& rank, commResult_t result) {
      rank.expect_error(result, commInvalidArgument, {"COMM_TUNER_FILE=", file, part},
                        "commInitFromLauncher");
    };
    launch(start, [](Rank&) {});
  }
}

TEST(TUNER_FILE, IsLookedAtWhereOneRankIsAloneToo) {
  world::run(
      {.nranks = 1, .environment = {{"COMM_TUNER_FILE", "/nowhere/table"}}, .connected = false},
      [](Rank& rank) {
        COMM_FAILS(rank, commInitFromLauncher(&rank.comm), commInvalidArgument,
                   "COMM_TUNER_FILE=/nowhere/table");
      });
}

TEST(TUNER_PLUGIN, DecidesForAllRanksOnRankZero) {
  const Folder folder;
  Launch start;
  start.settings = [&](int rank) {
    return Environment{{"COMM_DEBUG", "INFO"},
                       {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))},
                       {"COMM_TUNER_PLUGIN", rank == 0 ? SAMPLE_TUNER : ""}};
  };
  launch(start, [](Rank& rank) {
    std::vector<float> small(250, 1.0F), large(251, 1.0F), largest(25001, 1.0F);
    for (auto* data : {&small, &large, &largest}) sum(rank, *data);
    rank.expect(small[0] == 2 && large[0] == 2 && largest[0] == 2, "a wrong sum");
  });
  for (const char* file : {"log0", "log1"}) {
    const std::string log = read_file(folder / file);
    EXPECT_TRUE(contains(log, "allreduce of 250 x float32: oneshot")) << log;
    EXPECT_TRUE(contains(log, "allreduce of 251 x float32: ring (channels), 1 lanes")) << log;
    EXPECT_TRUE(contains(log, "allreduce of 25001 x float32: ring (channels), 2 lanes")) << log;
    EXPECT_TRUE(contains(log, "because: tuner plug-in 'sample'")) << log;
  }
}

TEST(TUNER_PLUGIN, IsStrongerThanAFile) {
  const Folder folder;
  write_file(folder / "table",
             "libcomm tuning table 1: a machine\n"
             "allreduce, 0, *, *, *, *, hd, *, *, *\n");
  const Environment both = {{"COMM_TUNER_FILE", folder / "table"},
                            {"COMM_TUNER_PLUGIN", SAMPLE_TUNER}};
  EXPECT_TRUE(contains(look(both, 250).log, "allreduce of 250 x float32: hd"));
  EXPECT_TRUE(contains(look(both, 251).log, "allreduce of 251 x float32: ring"));
}

TEST(TUNER_PLUGIN, OneThatCannotBeUsedFailsOnAllRanks) {
  const std::pair<const char*, const char*> cases[] = {{"/nowhere/tuner.so", "/nowhere/tuner.so"},
                                                       {NO_TUNER, "exports no commTunerPlugin_v1"}};
  for (const auto& [plugin, part] : cases) {
    Launch start;
    start.settings = [&](int rank) {
      return Environment{{"COMM_TUNER_PLUGIN", rank == 0 ? plugin : ""}};
    };
    start.init = [&](Rank& rank, commResult_t result) {
      rank.expect_error(result, commInvalidArgument, {"COMM_TUNER_PLUGIN=", part},
                        "commInitFromLauncher");
    };
    launch(start, [](Rank&) {});
  }
}

TEST(RINGS, OrderTheRanks) {
  // A sum that depends on its order: another ring, other bits.
  const Environment by_rank = rings({{"COMM_RINGS", "0 1 2 3"}});
  const Environment permuted = rings({{"COMM_RINGS", "0 2 1 3"}});
  const std::vector<float> first = look(by_rank, 1000, 4).result;
  EXPECT_EQ(look(by_rank, 1000, 4).result, first);
  EXPECT_NE(look(permuted, 1000, 4).result, first);
}

TEST(RINGS, MustNameEveryRankOnce) {
  for (const char* order : {"0 0", "0", "0 2", "0 1 2", "a b"}) {
    Launch start;
    start.settings = [&](int) { return Environment{{"COMM_RINGS", order}}; };
    start.init = [](Rank& rank, commResult_t result) {
      rank.expect_error(result, commInvalidArgument, {"COMM_RINGS"}, "commInitFromLauncher");
    };
    launch(start, [](Rank&) {});
  }
}

TEST(NTHREADS, AddsThreadsAndKeepsTheBits) {
  const size_t many = 400'000;  // enough to be shared
  const Look alone = look({}, many);
  const Look helped = look({{"COMM_NTHREADS", "2"}}, many);
  EXPECT_EQ(helped.stats.threads, alone.stats.threads + 2);
  EXPECT_EQ(helped.result, alone.result);
}

TEST(LAUNCH_MODE, ParallelGivesEachCommunicatorOfAGroupItsThread) {
  const auto threads_after = [](const char* mode) {
    int threads = -1;
    world::run({.nranks = 1, .environment = {{"COMM_LAUNCH_MODE", mode}}, .connected = false},
               [&](Rank& rank) {
                 comm_t comms[2];
                 COMM_OK(rank, commInitAll(comms, 2, nullptr));
                 float data[2] = {1, 2};
                 COMM_OK(rank, commGroupStart());
                 for (int i = 0; i < 2; ++i)
                   COMM_OK(rank, commAllReduce(&data[i], &data[i], 1, commFloat32, commSum,
                                               comms[i], nullptr));
                 COMM_OK(rank, commGroupEnd());
                 rank.expect(data[0] == 3 && data[1] == 3, "a wrong sum");
                 rank.comm = comms[0];
                 threads = stats_of(rank).threads;
                 for (const comm_t comm : comms) COMM_OK(rank, commDestroy(comm));
                 rank.comm = nullptr;
               });
    return threads;
  };
  EXPECT_EQ(threads_after("PARALLEL"), threads_after("GROUP") + 1);
}

TEST(CHECKS_DISABLE, LetsOverlappingBuffersThrough) {
  const auto overlap = [](commResult_t wanted) {
    return [wanted](Rank& rank) {
      std::vector<float> data(1001, 1.0F);
      const commResult_t result = commAllReduce(data.data(), data.data() + 1, 1000, commFloat32,
                                                commSum, rank.comm, nullptr);
      rank.expect(result == wanted, "overlapping buffers gave " + std::to_string(result));
    };
  };
  look_at({}, 2, overlap(commInvalidUsage));
  look_at({{"COMM_CHECKS_DISABLE", "1"}}, 2, overlap(commSuccess));
}

// The processor time in seconds that rank 0 uses while it waits 300 ms for rank 1.
double waiting_cost(const char* mode, const char* shm_disable) {
  double used = 0;
  look_at({{"COMM_WAIT", mode}, {"COMM_SHM_DISABLE", shm_disable}}, 2, [&](Rank& rank) {
    const auto now = [] {
      rusage usage{};
      getrusage(RUSAGE_THREAD, &usage);
      return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
             1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    };
    std::vector<float> data = uneven(rank.rank, 10);
    sum(rank, data);
    if (rank.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    const double before = now();
    sum(rank, data);
    if (rank.rank == 0) used = now() - before;
  });
  return used;
}

TEST(WAIT, BlockingUsesFarLessProcessorTimeThanSpinning) {
  for (const char* shm_disable : {"0", "1"}) {
    // A crowded machine may give the spinning rank little; the best of some tries tells.
    double spin = 0, block = 1;
    for (int i = 0; i < 10 && spin < 4 * block; ++i) {
      spin = std::max(spin, waiting_cost("spin", shm_disable));
      block = std::min(block, waiting_cost("block", shm_disable));
    }
    EXPECT_GT(spin, 4 * block);
  }
}

TEST(TIMEOUT, EndsAnOperationWithoutProgress) {
  look_at({{"COMM_TIMEOUT", "0.4"}}, 2, [](Rank& rank) {
    float one = 1;
    rank.meet();
    if (rank.rank == 0) {
      rank.expect_error(commAllReduce(&one, &one, 1, commFloat32, commSum, rank.comm, nullptr),
                        commSystemError,
                        {"peer 1: waiting for rank 1: no progress for 0.4 s", "COMM_TIMEOUT"},
                        "commAllReduce alone", rank.comm);
    } else {
      commResult_t state = commSuccess;
      while (state == commSuccess) {
        COMM_OK(rank, commGetAsyncError(rank.comm, &state));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
  });
}

// The CPUs that this thread may use.
std::vector<int> cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> all;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) all.push_back(cpu);
  return all;
}

TEST(CPU_AFFINITY, BindsEachRankToACore) {
  const std::vector<int> allowed = cpus();
  const Folder folder;
  Launch start;
  start.settings = [&](int) {
    return Environment{
        {"COMM_CPU_AFFINITY", "auto"}, {"COMM_DEBUG", "INFO"}, {"COMM_DEBUG_FILE", folder / "log"}};
  };
  launch(start, [&](Rank& rank) {
    const std::vector<int> bound = cpus();
    rank.expect(std::includes(allowed.begin(), allowed.end(), bound.begin(), bound.end()),
                "bound to what was not allowed");
    std::string text;
    for (const int cpu : bound) text += std::to_string(cpu) + " ";
    write_file(folder / ("cpus" + std::to_string(rank.rank)), text);
  });
  EXPECT_EQ(count(read_file(folder / "log"), "bound to "), 2);
  std::string all;
  for (const int cpu : allowed) all += std::to_string(cpu) + " ";
  // On a machine with one core the two ranks are on the same.
  if (read_file(folder / "cpus0") != all) {
    EXPECT_NE(read_file(folder / "cpus0"), read_file(folder / "cpus1"));
  }
}

TEST(CPU_AFFINITY, RefusesACoreThatIsNotThere) {
  Launch start;
  start.settings = [](int) { return Environment{{"COMM_CPU_AFFINITY", "99999"}}; };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect_error(result, commInvalidArgument, {"COMM_CPU_AFFINITY", "99999"},
                      "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

TEST(TOPO_FILE, ThatCannotBeReadIsAnErrorOfEveryInit) {
  Launch start;
  start.settings = [](int) { return Environment{{"COMM_TOPO_FILE", "/no/such.xml"}}; };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect_error(result, commSystemError, {"COMM_TOPO_FILE=/no/such.xml", "No such file"},
                      "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

// Only one of them has it: the others learn why it does not come.
TEST(TOPO_FILE, ThatOneRankCannotReadIsNamedToAll) {
  Launch start;
  start.settings = [](int rank) {
    return rank == 1 ? Environment{{"COMM_TOPO_FILE", "/no/such.xml"}} : Environment{};
  };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect(result != commSuccess, "it succeeds");
    rank.expect_error(result, result, {"rank 1", "COMM_TOPO_FILE=/no/such.xml", "No such file"},
                      "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

}  // namespace
}  // namespace knobs
