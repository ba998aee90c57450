// Knobs that change how ranks meet, what connects them and what is logged.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/knobs/looking.h"

namespace knobs {
namespace {

TEST(DEBUG, ChoosesHowMuchIsLogged) {
  const auto log_at = [](const char* level) {
    return look_at({{"COMM_DEBUG", level}}, 2,
                   [](Rank& rank) {
                     float one = 1;
                     // A mistake gives a warning.
                     rank.expect(commBroadcast(&one, &one, 1, commFloat32, 7, rank.comm, nullptr) ==
                                     commInvalidArgument,
                                 "root 7 of 2 ranks is accepted");
                     std::vector<float> data(10, 1.0F);
                     sum(rank, data);
                   })
        .log;
  };
  EXPECT_EQ(log_at("NONE"), "");
  EXPECT_FALSE(contains(log_at("VERSION"), " WARN "));
  EXPECT_TRUE(contains(log_at("VERSION"), " VERSION "));
  EXPECT_FALSE(contains(log_at("WARN"), " VERSION "));
  EXPECT_TRUE(contains(log_at("WARN"), " WARN "));
  EXPECT_FALSE(contains(log_at("WARN"), " INFO "));
  EXPECT_TRUE(contains(log_at("INFO"), " INFO "));
  EXPECT_TRUE(contains(log_at("TRACE"), " INFO "));
}

TEST(DEBUG_SUBSYS, ChoosesWhichPartsLog) {
  const std::string tuning = look({{"COMM_DEBUG_SUBSYS", "TUNING"}}).log;
  EXPECT_TRUE(contains(tuning, "because:"));
  EXPECT_FALSE(contains(tuning, "segments of"));
  const std::string rest = look({{"COMM_DEBUG_SUBSYS", "^TUNING"}}).log;
  EXPECT_FALSE(contains(rest, "because:"));
  EXPECT_TRUE(contains(rest, "segments of"));
}

TEST(DEBUG_SUBSYS, HasSomethingToSayForEveryPart) {
  const std::vector<std::pair<const char*, const char*>> said_by = {
      {"INIT", "segments of"},
      {"COLL", "operation 1: allreduce("},
      {"P2P", "channel to rank"},
      {"SHM", "plain memory"},
      {"GRAPH", "order of rings"},
      {"TUNING", "because:"},
      {"ENV", "COMM_ALGO=ring (environment)"},
      {"ALLOC", "commMemAlloc: 5000 bytes"},
      {"CALL", "float32, sum) of 0x"}};
  for (const auto& said : said_by) {
    const std::string part = said.first;
    const auto body = [](Rank& rank) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 5000));
      std::vector<float> data(100, 1.0F);
      sum(rank, data);
      COMM_OK(rank, commMemFree(memory));
    };
    const std::string log =
        look_at({{"COMM_DEBUG", "TRACE"}, {"COMM_DEBUG_SUBSYS", part}, {"COMM_ALGO", "ring"}}, 2,
                body)
            .log;
    for (const auto& [other, others_line] : said_by)
      EXPECT_EQ(contains(log, others_line), other == part) << part << ": " << log;
  }
}

TEST(DEBUG_FILE, NamesTheFileByProcess) {
  const Folder folder;
  Launch start;
  start.settings = [&](int) {
    return Environment{{"COMM_DEBUG", "INFO"}, {"COMM_DEBUG_FILE", folder / "log.%p"}};
  };
  launch(start, [&](Rank& rank) {
    const std::string log = read_file(folder / ("log." + std::to_string(getpid())));
    rank.expect(contains(log, "rank " + std::to_string(rank.rank) + " of 2"),
                "the log of this process is not in its file: " + log);
  });
}

TEST(RANK, IsThisProcessesRank) {
  Launch start;
  start.settings = [](int rank) { return Environment{{"COMM_RANK", std::to_string(1 - rank)}}; };
  launch(start, [](Rank& rank) {
    int mine = -1;
    COMM_OK(rank, commUserRank(rank.comm, &mine));
    rank.expect(mine == 1 - rank.rank, "commUserRank says " + std::to_string(mine));
  });
}

TEST(NRANKS, IsTheSizeOfTheGroup) {
  launch({.nranks = 3, .settings = {}, .init = {}}, [](Rank& rank) {
    int size = -1;
    COMM_OK(rank, commCount(rank.comm, &size));
    rank.expect(size == 3, "commCount says " + std::to_string(size));
  });
}

TEST(ID, MayBeAFile) {
  const Folder folder;
  Launch start;
  start.settings = [&](int) { return Environment{{"COMM_ID", "file://" + (folder / "id")}}; };
  launch(start, [](Rank& rank) {
    std::vector<float> data(10, 1.0F);
    sum(rank, data);
    rank.expect(data[9] == 2, "a wrong sum");
  });
}

TEST(ID, IsWhereTheLauncherMeets) {
  Launch start{.nranks = 1, .settings = {}, .init = {}};
  start.settings = [](int) { return Environment{{"COMM_ID", "nowhere"}, {"COMM_NRANKS", "2"}}; };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect_error(result, commInvalidArgument, {"COMM_ID", "nowhere"}, "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

// The log of rank 0 of a group that met under these settings.
std::string log_of_meeting(const Environment& settings) {
  const Folder folder;
  Launch start;
  start.settings = [&](int rank) {
    Environment all = {{"COMM_DEBUG", "INFO"},
                       {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))}};
    all.insert(all.end(), settings.begin(), settings.end());
    return all;
  };
  launch(start, [](Rank&) {});
  return read_file(folder / "log0");
}

TEST(SECRET, IsAskedForWhereNoneTravels) {
  EXPECT_TRUE(contains(log_of_meeting({{"COMM_SECRET", ""}}), "without a secret"));
  EXPECT_FALSE(contains(log_of_meeting({}), "without a secret"));
}

TEST(SECRET_FILE, HoldsTheSecretAndIsPrivate) {
  const Folder folder;
  write_file(folder / "secret", "of the knob tests\n");
  // One rank has it from the file, the other from the variable.
  Launch start;
  start.settings = [&](int rank) {
    if (rank == 0) return Environment{};
    return Environment{{"COMM_SECRET", ""}, {"COMM_SECRET_FILE", folder / "secret"}};
  };
  launch(start, [](Rank& rank) {
    std::vector<float> data(10, 1.0F);
    sum(rank, data);
  });
  write_file(folder / "secret", "of the knob tests\n", 0644);
  start.settings = [&](int) {
    return Environment{{"COMM_SECRET", ""}, {"COMM_SECRET_FILE", folder / "secret"}};
  };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect_error(result, commInvalidArgument, {"COMM_SECRET_FILE", "0644", "chmod 600"},
                      "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

TEST(HOSTID, KeepsHostsApart) {
  const auto log_of = [](const char* other) {
    const Folder folder;
    Launch start;
    start.settings = [&](int rank) {
      return Environment{{"COMM_DEBUG", "INFO"},
                         {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))},
                         {"COMM_HOSTID", rank == 0 ? "here" : other}};
    };
    launch(start, [](Rank& rank) {
      std::vector<float> data(1000, 1.0F);
      sum(rank, data);
      rank.expect(data[999] == 2, "a wrong sum");
    });
    return read_file(folder / "log0");
  };
  const std::string same = log_of("here"), apart = log_of("there");
  EXPECT_TRUE(contains(same, "1 hosts, all in shared memory")) << same;
  EXPECT_TRUE(contains(apart, "2 hosts, sockets")) << apart;
}

TEST(SHM_DISABLE, LeavesSockets) {
  EXPECT_TRUE(contains(look({}).log, "all in shared memory"));
  const Look off = look({{"COMM_SHM_DISABLE", "1"}});
  EXPECT_TRUE(contains(off.log, "1 hosts, sockets")) << off.log;
  EXPECT_EQ(off.result, look({{"COMM_ALGO", "rd"}}).result);
}

TEST(NSOCKS_PERTHREAD, MultipliesTheSocketsOfAPeer) {
  const Environment sockets = {{"COMM_SHM_DISABLE", "1"}, {"COMM_ALGO", "ring"}};
  Environment three = sockets;
  three.emplace_back("COMM_NSOCKS_PERTHREAD", "3");
  const Look one = look(sockets);
  // Two more per channel; a connection of the meeting may still be there or not.
  EXPECT_NEAR(look(three).stats.sockets, one.stats.sockets + 2 * one.stats.channels, 1);
}

TEST(SOCKET_NTHREADS, AddsHelperThreads) {
  const Environment sockets = {{"COMM_SHM_DISABLE", "1"}, {"COMM_ALGO", "ring"}};
  Environment two = sockets;
  two.emplace_back("COMM_SOCKET_NTHREADS", "2");
  const Look alone = look(sockets);
  const Look helped = look(two);
  EXPECT_EQ(helped.stats.threads, alone.stats.threads + 2);
  EXPECT_EQ(helped.result, alone.result);
}

TEST(SOCKET_FAMILY, ChoosesAddresses) {
  const std::string lo = "=lo";
  const auto joined = [&](const char* family) {
    return look({{"COMM_SOCKET_IFNAME", lo}, {"COMM_SOCKET_FAMILY", family}}).log;
  };
  const std::string v4 = joined("AF_INET");
  EXPECT_TRUE(contains(v4, "127.0.0.1:"));
  EXPECT_FALSE(contains(v4, "[::1]:"));
  if (!contains(read_file("/proc/net/if_inet6"), " lo"))
    GTEST_SKIP() << "the loopback interface has no IPv6 address here";
  const std::string v6 = joined("AF_INET6");
  EXPECT_FALSE(contains(v6, "127.0.0.1:"));
  EXPECT_TRUE(contains(v6, "[::1]:"));
}

TEST(CMA_DISABLE, LeavesPlainMemoryToItsOwner) {
  // Large all-gathers and all-to-alls are right either way.
  const auto exchange = [](Rank& rank) {
    const size_t count = 100'003;
    const auto n = static_cast<size_t>(rank.nranks);
    std::vector<int> in(n * count), out(n * count);
    for (size_t i = 0; i < in.size(); ++i) in[i] = rank.rank * 1000 + static_cast<int>(i % 997);
    COMM_OK(rank, commAllGather(in.data(), out.data(), count, commInt, rank.comm, nullptr));
    for (size_t r = 0; r < n; ++r)
      rank.expect(out[r * count + count - 1] ==
                      static_cast<int>(r) * 1000 + static_cast<int>((count - 1) % 997),
                  "a wrong all-gather");
    COMM_OK(rank, commAlltoAll(in.data(), out.data(), count, commInt, rank.comm, nullptr));
    const size_t mine = static_cast<size_t>(rank.rank) * count;
    for (size_t r = 0; r < n; ++r)
      rank.expect(
          out[r * count + 1] == static_cast<int>(r) * 1000 + static_cast<int>((mine + 1) % 997),
          "a wrong all-to-all");
  };
  const Folder folder;
  for (const char* off : {"0", "1"}) {
    const std::string log = folder / (std::string("log") + off);
    world::run({.nranks = 3,
                .kind = world::Kind::kProcesses,
                .environment = {{"COMM_CMA_DISABLE", off},
                                {"COMM_DEBUG", "INFO"},
                                {"COMM_DEBUG_FILE", log}}},
               exchange);
    const std::string text = read_file(log);
    EXPECT_EQ(contains(text, "do not read each other's plain memory"), *off == '1') << text;
  }
}

TEST(SOCKET_IFNAME, ChoosesInterfaces) {
  const std::string log = look({{"COMM_SOCKET_IFNAME", "=lo"}}).log;
  EXPECT_TRUE(contains(log, "127.0.0.1:") || contains(log, "[::1]:")) << log;
  world::run({.nranks = 1,
              .environment = {{"COMM_SOCKET_IFNAME", "^lo,eth,en,wl,docker,veth,br"}},
              .connected = false},
             [](Rank& rank) {
               // Either another interface is left or the text names those that are not wanted.
               if (commGetUniqueId(&rank.id) == commSuccess) return;
               rank.expect(contains(commGetLastError(nullptr), "COMM_SOCKET_IFNAME"),
                           commGetLastError(nullptr));
             });
}

TEST(BOOTSTRAP_TIMEOUT, EndsTheWaitForRanksThatDoNotCome) {
  Launch start{.nranks = 1, .settings = {}, .init = {}};
  start.settings = [](int) {
    return Environment{{"COMM_NRANKS", "2"}, {"COMM_BOOTSTRAP_TIMEOUT", "1"}};
  };
  start.init = [](Rank& rank, commResult_t result) {
    rank.expect_error(result, commSystemError, {"within 1 s", "rank 1", "COMM_BOOTSTRAP_TIMEOUT"},
                      "commInitFromLauncher");
  };
  launch(start, [](Rank&) {});
}

}  // namespace
}  // namespace knobs
