// Messages of GPU memory: in place where the ranks reach each other's, grouped in one way at one
// end and in another at the other, in graphs, and when one end fails.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/faults/scene.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using world::Kind;
using world::Rank;
using world::World;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "needs what only the double counts or breaks"

constexpr size_t kLarge = 30000;  // elements; far above what is staged
constexpr Kind kKinds[] = {Kind::kThreads, Kind::kProcesses};

uint64_t count(const char* what) {
  return gpu::control<uint64_t(const char*)>("cuda_double_count")(what);
}
uint64_t copies_launched() {
  return gpu::control<uint64_t(const char*)>("cuda_double_launches")("libcomm_late_copy");
}
void pause(gpu::Stream stream) { gpu::control<void(void*)>("cuda_double_pause")(stream); }
void resume(gpu::Stream stream) { gpu::control<void(void*)>("cuda_double_resume")(stream); }

// A world whose ranks have GPU 0 before they meet.
World on_gpus(int nranks, Kind kind) {
  return {.nranks = nranks, .kind = kind, .begin = [](int) { gpu::use(0); }};
}

// What a rank sends and receives with.
class Party {
 public:
  explicit Party(Rank& rank) : rank_(rank) {
    gpu::use(0);
    stream = gpu::create_stream();
    other = gpu::create_stream();
  }
  ~Party() {
    // Freeing waits for all streams, and others' may wait for a rank that gives up.
    if (std::uncaught_exceptions() > 0 && rank_.comm != nullptr)
      (void)commAbort(std::exchange(rank_.comm, nullptr));
    buffers_.clear();
    gpu::destroy(stream);
    gpu::destroy(other);
  }
  Party(const Party&) = delete;
  Party& operator=(const Party&) = delete;

  Floats& buffer(float value, size_t n = kLarge) {
    buffers_.push_back(std::make_unique<Floats>(n));
    buffers_.back()->set(value, stream);
    gpu::synchronise(stream);
    return *buffers_.back();
  }
  void send(Floats& data, int peer, gpu::Stream on = nullptr, comm_t comm = nullptr) {
    COMM_OK(rank_, commSend(data.on_gpu(), data.count(), commFloat, peer,
                            comm != nullptr ? comm : rank_.comm, of(on != nullptr ? on : stream)));
  }
  void receive(Floats& data, int peer, gpu::Stream on = nullptr, comm_t comm = nullptr) {
    COMM_OK(rank_, commRecv(data.on_gpu(), data.count(), commFloat, peer,
                            comm != nullptr ? comm : rank_.comm, of(on != nullptr ? on : stream)));
  }
  void group(const std::function<void()>& body) {
    COMM_OK(rank_, commGroupStart());
    body();
    COMM_OK(rank_, commGroupEnd());
  }
  // Once both streams have done what is on them.
  void expect(Floats& data, float value, const std::string& what) {
    gpu::synchronise(other);
    data.take(stream);
    gpu::synchronise(stream);
    rank_.expect(data.all(value), what);
  }

  gpu::Stream stream, other;

 private:
  Rank& rank_;
  std::vector<std::unique_ptr<Floats>> buffers_;
};

TEST(Message, BetweenRanksOfAHostIsCopiedByAKernel) {
  NEED_DOUBLE();
  for (const Kind kind : kKinds) {
    world::run(on_gpus(2, kind), [](Rank& rank) {
      Party party(rank);
      Floats& out = party.buffer(static_cast<float>(rank.rank + 1));
      Floats& in = party.buffer(0);
      rank.meet();
      const uint64_t before = count("d2h_bytes") + count("h2d_bytes");
      party.group([&] {
        party.send(out, 1 - rank.rank);
        party.receive(in, 1 - rank.rank);
      });
      gpu::synchronise(party.stream);
      rank.meet();
      rank.expect(count("d2h_bytes") + count("h2d_bytes") == before, "bytes went over the host");
      rank.expect(copies_launched() > 0, "no kernel did it");
      rank.meet();
      party.expect(in, static_cast<float>(2 - rank.rank), "wrong bytes");
    });
  }
}

TEST(Message, IsTakenFromTheSenderWhenItsStreamHasComeToIt) {
  NEED_DOUBLE();
  for (const Kind kind : kKinds) {
    world::run(on_gpus(2, kind), [](Rank& rank) {
      Party party(rank);
      Floats& data = party.buffer(0);
      Floats& now = party.buffer(7);
      Floats& later = party.buffer(9);
      const auto become = [&](Floats& other) {
        gpu::copy(data.on_gpu(), other.on_gpu(), kLarge * sizeof(float), party.stream);
      };
      if (rank.rank == 0) {
        pause(party.stream);
        become(now);
        party.send(data, 1);
        become(later);
        rank.meet();
        resume(party.stream);
      } else {
        party.receive(data, 0);
        rank.meet();
        party.expect(data, 7, "not what was there when the sender's stream came to it");
      }
      gpu::synchronise(party.stream);
    });
  }
}

// Two in one group at one end, each by itself, on streams of their own, at the other.
TEST(Messages, MayBeGroupedAtOneEndOnly) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    for (const bool sender_groups : {true, false}) {
      world::run({.nranks = 2, .kind = kind}, [&](Rank& rank) {
        Party party(rank);
        const bool sends = rank.rank == 0;
        Floats& first = party.buffer(sends ? 1 : 0);
        Floats& second = party.buffer(sends ? 2 : 0);
        const auto pass = [&](Floats& data, gpu::Stream on) {
          if (sends)
            party.send(data, 1, on);
          else
            party.receive(data, 0, on);
        };
        for (int round = 0; round < 5; ++round) {
          if (sends == sender_groups) {
            party.group([&] {
              pass(first, party.stream);
              pass(second, party.stream);
            });
          } else {
            pass(first, party.stream);
            pass(second, party.other);
          }
        }
        party.expect(first, 1, "another first message came");
        party.expect(second, 2, "another second message came");
      });
    }
  }
}

// What rank 0 receives of rank 1 comes when rank 2 has got rid of what rank 0 receives of it.
TEST(Messages, OfAGroupGoOnWithoutThoseThatComeLater) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 3, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      Floats& a = party.buffer(static_cast<float>(rank.rank * 10));
      Floats& b = party.buffer(static_cast<float>(rank.rank * 10 + 1));
      for (int round = 0; round < 5; ++round) {
        if (rank.rank == 0) {
          party.group([&] {
            party.receive(a, 1);
            party.receive(b, 2);
          });
        } else if (rank.rank == 1) {
          party.receive(a, 2);
          party.send(b, 0);
        } else {
          party.send(a, 0);
          party.send(b, 1);
        }
      }
      if (rank.rank == 0) {
        party.expect(a, 11, "a wrong message of rank 1");
        party.expect(b, 20, "a wrong message of rank 2");
      } else if (rank.rank == 1) {
        party.expect(a, 21, "a wrong message of rank 2");
      }
      gpu::synchronise(party.stream);
    });
  }
}

// More than one kernel takes, large ones and small ones between them, empty ones and ones to
// itself.
TEST(Messages, OfAGroupMayBeMany) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 3, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      constexpr int kMany = 90;
      const auto size = [](int i) -> size_t { return i % 3 == 0 ? 3000 : i % 3 == 1 ? 10 : 0; };
      std::vector<Floats*> out, in, own;
      for (int i = 0; i < kMany; ++i) {
        out.push_back(&party.buffer(static_cast<float>(rank.rank * 1000 + i), size(i) + 1));
        in.push_back(&party.buffer(-1, size(i) + 1));
        own.push_back(&party.buffer(-1, size(i) + 1));
      }
      const int to = (rank.rank + 1) % 3, from = (rank.rank + 2) % 3;
      const auto at = [](std::vector<Floats*>& all, int i) {
        return all[static_cast<size_t>(i)]->on_gpu();
      };
      party.group([&] {
        for (int i = 0; i < kMany; ++i) {
          const auto pass = [&](auto* call, auto* data, int peer) {
            COMM_OK(rank, call(data, size(i), commFloat, peer, rank.comm, of(party.stream)));
          };
          pass(commSend, at(out, i), to);
          pass(commRecv, at(in, i), from);
          pass(commSend, at(out, i), rank.rank);
          pass(commRecv, at(own, i), rank.rank);
        }
      });
      const auto check = [&](Floats& data, size_t n, float value) {
        std::vector<float> seen(n + 1);
        gpu::copy(seen.data(), data.on_gpu(), seen.size() * sizeof(float), party.stream);
        gpu::synchronise(party.stream);
        std::vector<float> expected(n, value);
        expected.push_back(-1);
        rank.expect(seen == expected, "a wrong message");
      };
      for (int i = 0; i < kMany; ++i) {
        check(*in[static_cast<size_t>(i)], size(i), static_cast<float>(from * 1000 + i));
        check(*own[static_cast<size_t>(i)], size(i), static_cast<float>(rank.rank * 1000 + i));
      }
    });
  }
}

// Beside a collective, and an all-to-all-v, in the same group.
TEST(Messages, ShareAGroupWithCollectives) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 3, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      const int to = (rank.rank + 1) % 3, from = (rank.rank + 2) % 3;
      Floats& sum = party.buffer(1);
      Floats& out = party.buffer(static_cast<float>(rank.rank));
      Floats& in = party.buffer(-1);
      Floats& all = party.buffer(static_cast<float>(rank.rank));
      Floats& each = party.buffer(-1);
      const std::vector<size_t> counts(3, kLarge / 3), displs{0, kLarge / 3, 2 * kLarge / 3};
      for (int round = 0; round < 3; ++round)
        party.group([&] {
          party.send(out, to);
          COMM_OK(rank, gpu::sum(sum, rank.comm, party.stream));
          party.receive(in, from);
          COMM_OK(rank, commAlltoAllv(all.on_gpu(), counts.data(), displs.data(), each.on_gpu(),
                                      counts.data(), displs.data(), commFloat, rank.comm,
                                      of(party.stream)));
        });
      party.expect(sum, 27, "a wrong sum");
      party.expect(in, static_cast<float>(from), "a wrong message");
      std::vector<float> seen(kLarge), expected;
      for (int r = 0; r < 3; ++r)
        expected.insert(expected.end(), kLarge / 3, static_cast<float>(r));
      gpu::copy(seen.data(), each.on_gpu(), kLarge * sizeof(float), party.stream);
      gpu::synchronise(party.stream);
      rank.expect(seen == expected, "a wrong all-to-all-v");
    });
  }
}

// Rank 0 calls for two communicators in one group and on one stream, rank 1 one after the other.
TEST(Messages, OfTwoCommunicatorsMayBeGroupedAtOneEndOnly) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 2, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      comm_t second = nullptr;
      COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &second, nullptr));
      Floats& a = party.buffer(rank.rank == 0 ? 0 : 1);
      Floats& b = party.buffer(rank.rank == 0 ? 0 : 2);
      for (int round = 0; round < 5; ++round) {
        if (rank.rank == 0) {
          party.group([&] {
            party.receive(a, 1);
            party.receive(b, 1, nullptr, second);
          });
        } else {
          party.send(a, 0);
          party.send(b, 0, nullptr, second);
        }
      }
      party.expect(a, 1, "a wrong message");
      party.expect(b, 2, "a wrong message of the second communicator");
      COMM_OK(rank, commDestroy(second));
    });
  }
}

// One thread, several ranks, one stream; rank 0 receives more than the others.
TEST(Messages, OfRanksThatShareAStreamPass) {
  NEED_GPU();
  constexpr int kRanks = 3;
  gpu::use(0);
  std::vector<comm_t> comms(kRanks);
  ASSERT_EQ(commInitAll(comms.data(), kRanks, nullptr), commSuccess) << commGetLastError(nullptr);
  for (const gpu::Stream stream : {gpu::kDefaultStream, gpu::kPerThreadStream}) {
    std::vector<std::unique_ptr<Floats>> out, in;
    for (int r = 0; r < kRanks; ++r)
      for (int peer = 0; peer < kRanks; ++peer) {
        out.push_back(std::make_unique<Floats>(kLarge));
        out.back()->set(static_cast<float>(r * 10 + peer), stream);
        in.push_back(std::make_unique<Floats>(kLarge));
        in.back()->set(-1, stream);
      }
    const auto goes = [](int from, int to) { return to == 0 || from == 0; };
    const auto index = [](int rank, int peer) { return static_cast<size_t>(rank * kRanks + peer); };
    ASSERT_EQ(commGroupStart(), commSuccess);
    for (int r = 0; r < kRanks; ++r)
      for (int peer = 0; peer < kRanks; ++peer) {
        comm_t comm = comms[static_cast<size_t>(r)];
        if (goes(r, peer)) {
          EXPECT_EQ(
              commSend(out[index(r, peer)]->on_gpu(), kLarge, commFloat, peer, comm, of(stream)),
              commSuccess);
        }
        if (goes(peer, r)) {
          EXPECT_EQ(
              commRecv(in[index(r, peer)]->on_gpu(), kLarge, commFloat, peer, comm, of(stream)),
              commSuccess);
        }
      }
    ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
    for (const auto& each : in) each->take(stream);
    gpu::synchronise(stream);
    for (int r = 0; r < kRanks; ++r)
      for (int peer = 0; peer < kRanks; ++peer)
        EXPECT_TRUE(in[index(r, peer)]->all(goes(peer, r) ? static_cast<float>(peer * 10 + r) : -1))
            << "from " << peer << " to " << r;
  }
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

// What rank 0 receives is there before it has sent all, for which it needs credit of rank 1, whose
// kernel comes before rank 0's last stage.
TEST(Messages, OfRanksThatShareAStreamGoOnBetweenKernels) {
  NEED_GPU();
  constexpr int kSmall = 200;
  gpu::use(0);
  std::vector<comm_t> comms(2);
  ASSERT_EQ(commInitAll(comms.data(), 2, nullptr), commSuccess) << commGetLastError(nullptr);
  {
    Floats small(kSmall), got(kSmall), large(kLarge), last(kLarge), first(kLarge), second(kLarge);
    small.set(1, nullptr);
    large.set(2, nullptr);
    ASSERT_EQ(commGroupStart(), commSuccess);
    const auto send = [&](const float* from, size_t n, int rank) {
      EXPECT_EQ(
          commSend(from, n, commFloat, 1 - rank, comms[static_cast<size_t>(rank)], cudaStream_t{}),
          commSuccess);
    };
    const auto receive = [&](float* to, size_t n, int rank) {
      EXPECT_EQ(
          commRecv(to, n, commFloat, 1 - rank, comms[static_cast<size_t>(rank)], cudaStream_t{}),
          commSuccess);
    };
    for (int i = 0; i < kSmall; ++i) send(small.on_gpu() + i, 1, 0);
    send(large.on_gpu(), kLarge, 0);
    receive(first.on_gpu(), kLarge, 0);
    receive(second.on_gpu(), kLarge, 0);
    for (int i = 0; i < kSmall; ++i) receive(got.on_gpu() + i, 1, 1);
    receive(last.on_gpu(), kLarge, 1);
    send(large.on_gpu(), kLarge, 1);
    send(large.on_gpu(), kLarge, 1);
    ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
    for (Floats* each : {&got, &last, &first, &second}) each->take(nullptr);
    gpu::synchronise(nullptr);
    EXPECT_TRUE(got.all(1));
    for (Floats* each : {&last, &first, &second}) EXPECT_TRUE(each->all(2));
  }
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

// Memory of which other processes cannot have a handle, at either end and at both.
TEST(Message, OfMemoryThatOthersDoNotReachIsCopiedFirst) {
  NEED_GPU();
  for (const int managed_ends : {1, 2, 3}) {
    world::run({.nranks = 2, .kind = Kind::kProcesses}, [&](Rank& rank) {
      Party party(rank);
      Floats& data = party.buffer(static_cast<float>(rank.rank == 0 ? 7 : 0));
      constexpr size_t kBytes = kLarge * sizeof(float);
      const bool managed = ((managed_ends >> rank.rank) & 1) != 0;
      auto* apart = static_cast<float*>(gpu::allocate_managed(kBytes));
      gpu::copy(apart, data.on_gpu(), kBytes, party.stream);
      float* const mine = managed ? apart : data.on_gpu();
      for (int round = 0; round < 3; ++round) {
        if (rank.rank == 0)
          COMM_OK(rank, commSend(mine, kLarge, commFloat, 1, rank.comm, of(party.stream)));
        else
          COMM_OK(rank, commRecv(mine, kLarge, commFloat, 0, rank.comm, of(party.stream)));
      }
      gpu::copy(data.on_gpu(), mine, kBytes, party.stream);
      party.expect(data, 7, "a wrong message");
      gpu::free(apart);
      COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
      if (!gpu::is_double()) return;
      rank.expect(count("device_bytes") == kBytes, "GPU memory of the library is left");
      rank.expect(count("ipc_open") == 0, "mapped memory is left");
    });
  }
}

// The communicator met on GPU 0, and is used on GPU 1.
TEST(Message, OfAnotherGpuThanTheRanksMetOnComes) {
  NEED_DOUBLE();
  for (const Kind kind : kKinds) {
    for (const int odd : {0, 1}) {
      world::run(on_gpus(2, kind), [&](Rank& rank) {
        gpu::use(rank.rank == odd ? 1 : 0);
        const gpu::Stream stream = gpu::create_stream();
        {
          Floats data(kLarge);
          data.set(static_cast<float>(rank.rank), stream);
          if (rank.rank == 1)
            COMM_OK(rank, commSend(data.on_gpu(), kLarge, commFloat, 0, rank.comm, of(stream)));
          else
            COMM_OK(rank, commRecv(data.on_gpu(), kLarge, commFloat, 1, rank.comm, of(stream)));
          data.take(stream);
          gpu::synchronise(stream);
          rank.expect(data.all(1), "a wrong message");
        }
        gpu::destroy(stream);
      });
    }
  }
}

TEST(Messages, OfAGraphPassAtEachLaunch) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 3, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      {
        Floats& out = party.buffer(0);
        Floats& in = party.buffer(0);
        Floats& small = party.buffer(0, 20);
        Floats& got = party.buffer(0, 20);
        const int to = (rank.rank + 1) % 3, from = (rank.rank + 2) % 3;
        const gpu::Graph graph(party.stream, [&] {
          party.group([&] {
            party.send(out, to);
            party.send(small, from);
            party.receive(in, from);
            party.receive(got, to);
          });
        });
        for (int launch = 1; launch <= 5; ++launch) {
          out.set(static_cast<float>(rank.rank * 100 + launch), party.stream);
          small.set(static_cast<float>(rank.rank * 100 - launch), party.stream);
          graph.launch(party.stream);
          if (launch % 2 == 0) graph.launch(party.stream);  // at once again
          party.expect(in, static_cast<float>(from * 100 + launch), "a wrong large message");
          party.expect(got, static_cast<float>(to * 100 - launch), "a wrong small message");
          // Others between the launches.
          if (rank.rank == 0) party.send(out, 1);
          if (rank.rank == 1) party.receive(in, 0);
        }
        gpu::synchronise(party.stream);
      }
    });
  }
}

TEST(CommDestroy, WaitsForMessagesThatArePending) {
  NEED_DOUBLE();
  for (const Kind kind : kKinds) {
    world::run({.nranks = 2, .kind = kind}, [](Rank& rank) {
      Party party(rank);
      Floats& data = party.buffer(static_cast<float>(rank.rank));
      for (int i = 0; i < 3; ++i) {
        if (rank.rank == 0)
          party.receive(data, 1);
        else
          party.send(data, 0);
      }
      COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
      party.expect(data, 1, "a wrong message");
    });
  }
}

// ---- what goes wrong ---------------------------------------------------------------------------

void await_failure(Rank& rank, commResult_t* state) {
  *state = commSuccess;
  faults::await(
      [&] {
        COMM_OK(rank, commGetAsyncError(rank.comm, state));
        return *state != commSuccess;
      },
      "no failure is reported");
}

void expect_mismatch(Rank& rank, const std::vector<std::string>& parts) {
  commResult_t state = commSuccess;
  await_failure(rank, &state);
  rank.expect(state == commInvalidUsage, "the state is " + std::to_string(state));
  const std::string text = commGetLastError(rank.comm);
  for (const std::string& part : parts)
    rank.expect(text.find(part) != std::string::npos, "\"" + text + "\" lacks " + part);
}

// Both large; one large and one small.
TEST(Messages, OfDifferentSizesAreNamed) {
  NEED_GPU();
  for (const Kind kind : kKinds) {
    for (const size_t received : {size_t{20000}, size_t{10}}) {
      world::run({.nranks = 2, .kind = kind}, [&](Rank& rank) {
        Party party(rank);
        Floats& data = party.buffer(1);
        // The call may be in time to hear of it.
        (void)(rank.rank == 0
                   ? commSend(data.on_gpu(), kLarge, commFloat, 1, rank.comm, of(party.stream))
                   : commRecv(data.on_gpu(), received, commFloat, 0, rank.comm, of(party.stream)));
        gpu::synchronise(party.stream);
        expect_mismatch(rank, {"count " + std::to_string(kLarge),
                               "count " + std::to_string(received), "rank 0", "rank 1"});
      });
    }
  }
}

// Small ones pass; of a large one both ends hear what the other has.
TEST(Messages, FromGpuToHostMemoryPassOrAreNamed) {
  NEED_DOUBLE();
  for (const int host_end : {0, 1}) {
    world::run(on_gpus(2, Kind::kProcesses), [&](Rank& rank) {
      Party party(rank);
      Floats& data = party.buffer(static_cast<float>(rank.rank == 0 ? 7 : 0));
      std::vector<float> host(kLarge, static_cast<float>(rank.rank == 0 ? 7 : 0));
      const bool on_host = rank.rank == host_end;
      const auto pass = [&](size_t n) {
        float* const mine = on_host ? host.data() : data.on_gpu();
        const cudaStream_t stream = on_host ? nullptr : of(party.stream);
        return rank.rank == 0 ? commSend(mine, n, commFloat, 1, rank.comm, stream)
                              : commRecv(mine, n, commFloat, 0, rank.comm, stream);
      };
      COMM_OK(rank, pass(100));
      std::vector<float> seen(100);
      gpu::copy(seen.data(), data.on_gpu(), 100 * sizeof(float), party.stream);
      gpu::synchronise(party.stream);
      rank.expect((on_host ? host : seen)[99] == 7, "a wrong small message");
      (void)pass(kLarge);
      gpu::synchronise(party.stream);
      expect_mismatch(rank, {"sendrecv(count 30000, float32) of GPU memory", "rank 0", "rank 1"});
    });
  }
}

// The other end has not come, is not to come, and dies: named, and the stream goes on.
TEST(DeadPeer, EndsTheWaitsOfMessages) {
  NEED_DOUBLE();
  for (const bool victim_sends : {true, false}) {
    faults::Scene& scene = faults::Scene::make();
    World world = on_gpus(3, Kind::kProcesses);
    world.victims = {1};
    world::run(world, [&](Rank& rank) {
      Party party(rank);
      Floats& data = party.buffer(1);
      // Once before, between all.
      party.group([&] {
        party.send(data, (rank.rank + 1) % 3);
        party.receive(data, (rank.rank + 2) % 3);
      });
      gpu::synchronise(party.stream);
      if (rank.rank != 1) {
        // Rank 0 waits for rank 1, and rank 2 for rank 0.
        const int peer = rank.rank == 0 ? 1 : 0;
        if (victim_sends == (rank.rank == 0))
          party.receive(data, peer);
        else
          party.send(data, peer);
      }
      ++scene.done;
      faults::await([&] { return scene.done == 3; }, "a rank did not come so far");
      if (rank.rank == 1) faults::die();
      gpu::synchronise(party.stream);
      commResult_t state = commSuccess;
      await_failure(rank, &state);
      const std::string text = commGetLastError(rank.comm);
      rank.expect(text.find("rank 1") != std::string::npos, "rank 1 is not named: " + text);
      (void)commAbort(std::exchange(rank.comm, nullptr));
      _exit(rank.failures.empty() ? 0 : 1);
    });
  }
}

// A sender that has offered, a receiver without an offer, and each with the other's stream held.
TEST(Abort, EndsTheWaitsOfMessages) {
  NEED_DOUBLE();
  struct Case {
    bool sends, receives;  // whether the rank has its call
    int held;              // the rank whose stream is paused; -1: none
    int aborts;
  };
  constexpr Case kCases[] = {
      {true, false, -1, 1}, {false, true, -1, 0}, {true, true, 1, 1}, {true, true, 0, 0}};
  for (const Kind kind : kKinds) {
    for (const Case& each : kCases) {
      world::run(on_gpus(2, kind), [&](Rank& rank) {
        Party party(rank);
        Floats& data = party.buffer(1);
        if (rank.rank == each.held) pause(party.stream);
        if (rank.rank == 0 && each.sends) party.send(data, 1);
        if (rank.rank == 1 && each.receives) party.receive(data, 0);
        rank.meet();
        if (rank.rank != each.aborts) gpu::synchronise(party.stream);
        COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
        if (rank.rank == each.held) resume(party.stream);
        gpu::synchronise(party.stream);
      });
    }
  }
}

faults::Scene* g_scene = nullptr;

// A copy that takes its time.
void copy_when_told(const void*, unsigned, unsigned) {
  ++g_scene->ready;
  while (g_scene->flag == 0) std::this_thread::yield();
}

// While the receiver's kernel runs.
TEST(Abort, OfTheSenderDoesNotWaitForTheReceiversKernel) {
  NEED_DOUBLE();
  g_scene = &faults::Scene::make();
  World world = on_gpus(2, Kind::kProcesses);
  world.begin = [](int) {
    using Body = void (*)(const void*, unsigned, unsigned);
    gpu::control<void(const char*, size_t, Body)>("cuda_double_register_kernel")(
        "libcomm_late_copy", sizeof(const void*), copy_when_told);
    gpu::use(0);
  };
  world::run(world, [](Rank& rank) {
    Party party(rank);
    Floats& data = party.buffer(1);
    if (rank.rank == 1) {
      party.receive(data, 0);
    } else {
      party.send(data, 1);
      faults::await([] { return g_scene->ready > 0; }, "the kernel did not begin");
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      gpu::synchronise(party.stream);
      g_scene->flag = 1;
    }
    gpu::synchronise(party.stream);
  });
}

}  // namespace
