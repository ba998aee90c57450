// Ranks that use each other's GPU memory in place: that they do, when they must not, and what the
// others then get.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/device/kernels/arguments.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using gpu::sum;
using world::Environment;
using world::Kind;
using world::Rank;
using world::World;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "looks at what only the double counts"

uint64_t sums_launched() {
  return gpu::control<uint64_t(const char*)>("cuda_double_launches")("libcomm_late_reduce_float32");
}
uint64_t count(const char* what) {
  return gpu::control<uint64_t(const char*)>("cuda_double_count")(what);
}

World on_gpu(int gpu_of_odd_ranks, int nranks, Environment environment = {}) {
  return {.nranks = nranks,
          .kind = Kind::kProcesses,
          .environment = std::move(environment),
          .begin = [=](int rank) { gpu::use(rank % 2 == 0 ? 0 : gpu_of_odd_ranks); }};
}

// A sum of `data`, all of whose elements are the rank's number plus 1 before.
void check_sum(Rank& rank, Floats& data, gpu::Stream stream, const std::string& what) {
  data.set(static_cast<float>(rank.rank + 1), stream);
  COMM_OK(rank, sum(data, rank.comm, stream));
  data.take(stream);
  gpu::synchronise(stream);
  rank.expect(data.all(static_cast<float>(rank.nranks * (rank.nranks + 1) / 2)), what);
}

void with_stream(const std::function<void(gpu::Stream)>& body) {
  const gpu::Stream stream = gpu::create_stream();
  body(stream);
  gpu::destroy(stream);
}

enum class Way { kInPlace, kStaged };

// Ranks sum, and say which way the bytes went.
void expect_way(const World& world, Way way) {
  world::run(world, [&](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(300000);
      check_sum(rank, data, stream, "a wrong sum");
      rank.expect((sums_launched() > 0) == (way == Way::kInPlace),
                  way == Way::kInPlace ? "no kernel did it" : "a kernel did it");
    });
  });
}

TEST(Peers, OnOneGpuUseItsMemoryInPlace) {
  NEED_DOUBLE();
  for (const int nranks : {2, 3, 4}) expect_way(on_gpu(0, nranks), Way::kInPlace);
}

TEST(Peers, OnTwoGpusUseTheirMemoryInPlace) {
  NEED_DOUBLE();
  expect_way(on_gpu(1, 4), Way::kInPlace);
}

TEST(Peers, WhoseGpusDoNotReachEachOtherStage) {
  NEED_DOUBLE();
  World world = on_gpu(1, 3);
  world.begin = [use = world.begin](int rank) {
    gpu::control<void(int, int, int)>("cuda_double_set_peer")(1, 0, 0);
    use(rank);
  };
  expect_way(world, Way::kStaged);
}

// As with an IOMMU in the way: the copy is made, and nothing has come.
TEST(Peers, BetweenWhomBytesGetLostStage) {
  NEED_DOUBLE();
  World world = on_gpu(1, 3);
  world.begin = [use = world.begin](int rank) {
    using Body = void (*)(const void*, unsigned, unsigned);
    constexpr size_t kArguments = 8;
    if (rank == 1)
      gpu::control<void(const char*, size_t, Body)>("cuda_double_register_kernel")(
          "libcomm_copy", kArguments, [](const void*, unsigned, unsigned) {});
    use(rank);
  };
  expect_way(world, Way::kStaged);
}

// All but what the first kernel, the one that reads, was to bring from rank 0.
void lose_what_is_read_of_rank_0(const void* given, unsigned, unsigned) {
  static int launches = 0;
  const auto resolve = gpu::control<void*(void*, size_t)>("cuda_double_resolve");
  const auto& arguments = *static_cast<const libcomm::cuda::CopyArguments*>(given);
  for (int s = launches++ == 0 ? 1 : 0; s < arguments.segment_count; ++s) {
    const auto& segment = arguments.segments[s];
    std::memcpy(resolve(segment.to, segment.bytes),
                resolve(const_cast<void*>(segment.from), segment.bytes), segment.bytes);
  }
}

TEST(Peers, OfWhomOneReadsNothingStage) {
  NEED_DOUBLE();
  World world = on_gpu(1, 3);
  world.begin = [use = world.begin](int rank) {
    using Body = void (*)(const void*, unsigned, unsigned);
    if (rank == 1)
      gpu::control<void(const char*, size_t, Body)>("cuda_double_register_kernel")(
          "libcomm_copy", sizeof(libcomm::cuda::CopyArguments), lose_what_is_read_of_rank_0);
    use(rank);
  };
  expect_way(world, Way::kStaged);
}

TEST(Peers, OfWhichOneHasNoGpuWhenTheyMeetStage) {
  NEED_DOUBLE();
  World world = on_gpu(0, 3);
  world.begin = [](int rank) {
    if (rank != 2) gpu::use(0);
  };
  world::run(world, [&](Rank& rank) {
    gpu::use(0);
    with_stream([&](gpu::Stream stream) {
      Floats data(1000);
      check_sum(rank, data, stream, "a wrong sum");
      rank.expect(sums_launched() == 0, "a kernel did it");
    });
  });
}

// The bytes of a collective stay on the GPU.
TEST(Peers, CopyNothingToTheHost) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(100000), blocks(300000);
      data.set(1, stream);
      blocks.set(1, stream);
      gpu::synchronise(stream);
      const uint64_t before = count("d2h_bytes") + count("h2d_bytes");
      COMM_OK(rank, sum(data, rank.comm, stream));
      COMM_OK(rank, commAllGather(data.on_gpu(), blocks.on_gpu(), data.count(), commFloat,
                                  rank.comm, of(stream)));
      COMM_OK(rank, commBroadcast(data.on_gpu(), data.on_gpu(), data.count(), commFloat, 1,
                                  rank.comm, of(stream)));
      COMM_OK(rank, commReduceScatter(blocks.on_gpu(), data.on_gpu(), data.count(), commFloat,
                                      commSum, rank.comm, of(stream)));
      const std::vector<size_t> counts{30000, 0, 70000};
      const std::vector<size_t> displs{70000, 0, 0};
      const size_t mine = counts[static_cast<size_t>(rank.rank)];
      COMM_OK(rank, commAllGatherv(data.on_gpu(), mine, blocks.on_gpu(), counts.data(),
                                   displs.data(), commFloat, rank.comm, of(stream)));
      COMM_OK(rank, commReduceScatterv(blocks.on_gpu(), data.on_gpu(), counts.data(), commFloat,
                                       commSum, rank.comm, of(stream)));
      gpu::synchronise(stream);
      rank.expect(count("d2h_bytes") + count("h2d_bytes") == before, "bytes went over the host");
      std::vector<float> seen(100000);
      gpu::copy(seen.data(), data.on_gpu(), seen.size() * sizeof(float), stream);
      gpu::synchronise(stream);
      std::vector<float> expected(100000, 9);
      std::fill_n(expected.begin(), mine, 27.0F);
      rank.expect(seen == expected, "wrong bytes");
    });
  });
}

// Large ones, several to the same peer, to itself, of no bytes, and an all-to-all-v.
TEST(Peers, SendEachOtherMessages) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      constexpr size_t kLarge = 3000000;
      Floats large(kLarge), small(10), got_large(kLarge), got_small(10), own(5), got_own(5);
      const int to = (rank.rank + 1) % 3, from = (rank.rank + 2) % 3;
      const auto mine = static_cast<float>(rank.rank + 1), theirs = static_cast<float>(from + 1);
      large.set(mine, stream);
      small.set(mine * 10, stream);
      own.set(mine * 100, stream);
      const auto send = [&](Floats& data, size_t n, int peer) {
        COMM_OK(rank, commSend(data.on_gpu(), n, commFloat, peer, rank.comm, of(stream)));
      };
      const auto receive = [&](Floats& data, size_t n, int peer) {
        COMM_OK(rank, commRecv(data.on_gpu(), n, commFloat, peer, rank.comm, of(stream)));
      };
      COMM_OK(rank, commGroupStart());
      receive(got_own, 5, rank.rank);
      send(large, kLarge, to);
      send(small, 0, to);
      send(small, 10, to);
      send(own, 5, rank.rank);
      receive(got_large, kLarge, from);
      receive(got_small, 0, from);
      receive(got_small, 10, from);
      COMM_OK(rank, commGroupEnd());
      // Alone, without a group.
      if (rank.rank == 0) send(small, 10, 1);
      if (rank.rank == 1) receive(got_small, 10, 0);
      got_large.take(stream);
      got_small.take(stream);
      got_own.take(stream);
      gpu::synchronise(stream);
      rank.expect(got_large.all(theirs), "a wrong large message");
      rank.expect(got_small.all(theirs * 10), "a wrong small message");
      rank.expect(got_own.all(mine * 100), "a wrong message to itself");

      const std::vector<size_t> counts(3, 3), displs{0, 3, 6};
      Floats in(9), out(9);
      in.set(mine, stream);
      COMM_OK(rank, commAlltoAllv(in.on_gpu(), counts.data(), displs.data(), out.on_gpu(),
                                  counts.data(), displs.data(), commFloat, rank.comm, of(stream)));
      std::vector<float> seen(9);
      gpu::copy(seen.data(), out.on_gpu(), 9 * sizeof(float), stream);
      gpu::synchronise(stream);
      rank.expect(seen == std::vector<float>{1, 1, 1, 2, 2, 2, 3, 3, 3}, "a wrong all-to-all-v");
    });
  });
}

// One end has managed memory, which only its own process reaches.
TEST(Peers, SendMessagesOfWhichOneEndCannotBeReached) {
  NEED_DOUBLE();
  for (const int odd : {0, 1}) {
    world::run(on_gpu(0, 2), [&](Rank& rank) {
      with_stream([&](gpu::Stream stream) {
        constexpr size_t kCount = 1500000;
        Floats data(kCount);
        auto* managed = static_cast<float*>(gpu::allocate_managed(kCount * sizeof(float)));
        data.set(rank.rank == 0 ? 7 : 0, stream);
        gpu::copy(managed, data.on_gpu(), kCount * sizeof(float), stream);
        float* const mine = rank.rank == odd ? managed : data.on_gpu();
        if (rank.rank == 0)
          COMM_OK(rank, commSend(mine, kCount, commFloat, 1, rank.comm, of(stream)));
        else
          COMM_OK(rank, commRecv(mine, kCount, commFloat, 0, rank.comm, of(stream)));
        gpu::copy(data.on_gpu(), mine, kCount * sizeof(float), stream);
        data.take(stream);
        gpu::synchronise(stream);
        rank.expect(data.all(7), "a wrong message");
        gpu::free(managed);
      });
    });
  }
}

// Managed memory has no IPC handle: one call goes another way at all ranks, the next does not.
TEST(Peers, StageWhatOneOfThemCannotExport) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      constexpr size_t kCount = 100000;
      Floats data(kCount);
      check_sum(rank, data, stream, "a wrong sum before");
      data.set(1, stream);
      auto* managed = static_cast<float*>(gpu::allocate_managed(kCount * sizeof(float)));
      float* const mine = rank.rank == 1 ? managed : data.on_gpu();
      gpu::copy(managed, data.on_gpu(), kCount * sizeof(float), stream);
      gpu::synchronise(stream);
      const uint64_t before = count("d2h_bytes");
      COMM_OK(rank, commAllReduce(mine, mine, kCount, commFloat, commSum, rank.comm, of(stream)));
      gpu::synchronise(stream);
      rank.expect(count("d2h_bytes") > before, "managed memory was not staged");
      gpu::copy(data.on_gpu(), mine, kCount * sizeof(float), stream);
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(3), "a wrong sum of managed memory");
      const uint64_t launched = sums_launched();
      check_sum(rank, data, stream, "a wrong sum afterwards");
      rank.expect(sums_launched() > launched, "no kernel afterwards");
      gpu::free(managed);
    });
  });
}

// A group of many calls, of which each rank can let the others reach another part.
TEST(Peers, StageSomeCallsOfAGroup) {
  NEED_DOUBLE();
  for (const Kind kind : {Kind::kProcesses, Kind::kThreads}) {
    World world = on_gpu(kind == Kind::kThreads ? 1 : 0, 3);
    world.kind = kind;
    world::run(world, [](Rank& rank) {
      with_stream([&](gpu::Stream stream) {
        constexpr size_t kCount = 40000, kCalls = 9;
        constexpr size_t kBytes = kCount * sizeof(float);
        Floats data(kCount);
        data.set(static_cast<float>(rank.rank + 1), stream);
        std::vector<float*> buffers;
        for (size_t i = 0; i < kCalls; ++i) {
          const bool apart = i % 4 == static_cast<size_t>(rank.rank);
          void* made = apart ? gpu::allocate_managed(kBytes) : gpu::allocate(kBytes);
          buffers.push_back(static_cast<float*>(made));
          gpu::copy(made, data.on_gpu(), kBytes, stream);
        }
        COMM_OK(rank, commGroupStart());
        for (float* buffer : buffers)
          COMM_OK(rank,
                  commAllReduce(buffer, buffer, kCount, commFloat, commSum, rank.comm, of(stream)));
        COMM_OK(rank, commGroupEnd());
        for (float* buffer : buffers) {
          gpu::copy(data.on_gpu(), buffer, kBytes, stream);
          data.take(stream);
          gpu::synchronise(stream);
          rank.expect(data.all(6), "a wrong sum");
          gpu::free(buffer);
        }
      });
    });
  }
}

// Pre-multiplied sums, whose factors are of the host or on the GPU, on one stream and in a graph.
// Nothing but the factor goes to the host.
TEST(Peers, PreMultiplySums) {
  NEED_DOUBLE();
  for (const bool on_the_gpu : {false, true}) {
    world::run(on_gpu(0, 3), [&](Rank& rank) {
      with_stream([&](gpu::Stream stream) {
        const float mine = static_cast<float>(rank.rank + 1) * 10;
        Floats data(30000), sums(30000), block(10000), factor(1);
        factor.set(on_the_gpu ? mine : 0, stream);
        data.set(static_cast<float>(rank.rank + 1), stream);
        gpu::synchronise(stream);
        commRedOp_t op = commSum;
        if (on_the_gpu)
          COMM_OK(rank, commRedOpCreatePreMulSum(&op, factor.on_gpu(), commFloat, commScalarDevice,
                                                 rank.comm));
        else
          COMM_OK(rank, commRedOpCreatePreMulSum(&op, const_cast<float*>(&mine), commFloat,
                                                 commScalarHostImmediate, rank.comm));
        const auto add = [&] {
          COMM_OK(rank, commAllReduce(data.on_gpu(), sums.on_gpu(), data.count(), commFloat, op,
                                      rank.comm, of(stream)));
          COMM_OK(rank, commReduceScatter(data.on_gpu(), block.on_gpu(), block.count(), commFloat,
                                          op, rank.comm, of(stream)));
        };
        const auto check = [&](float sum) {
          sums.take(stream);
          block.take(stream);
          gpu::synchronise(stream);
          rank.expect(sums.all(sum), "a wrong sum");
          rank.expect(block.all(sum), "a wrong block of sums");
        };
        const uint64_t before = count("d2h_bytes") + count("h2d_bytes");
        add();
        gpu::synchronise(stream);
        rank.expect(count("d2h_bytes") + count("h2d_bytes") ==
                        before + (on_the_gpu ? 2 * sizeof(float) : 0),
                    "bytes went over the host");
        check(10 + 40 + 90);
        const gpu::Graph graph(stream, add);
        if (on_the_gpu) factor.set(mine + 1, stream);
        graph.launch(stream);
        check(10 + 40 + 90 + (on_the_gpu ? 1 + 2 + 3 : 0));
        COMM_OK(rank, commRedOpDestroy(op, rank.comm));
      });
    });
  }
}

// The same where one rank's memory cannot be reached.
TEST(Peers, StagePreMultipliedSumsOfMemoryThatIsNotReached) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(1000), factor(1);
      constexpr size_t kBytes = 1000 * sizeof(float);
      auto* apart = static_cast<float*>(gpu::allocate_managed(kBytes));
      factor.set(10, stream);
      data.set(static_cast<float>(rank.rank + 1), stream);
      gpu::copy(apart, data.on_gpu(), kBytes, stream);
      float* const at = rank.rank == 0 ? apart : data.on_gpu();
      commRedOp_t op = commSum;
      COMM_OK(rank, commRedOpCreatePreMulSum(&op, factor.on_gpu(), commFloat, commScalarDevice,
                                             rank.comm));
      COMM_OK(rank, commAllReduce(at, at, data.count(), commFloat, op, rank.comm, of(stream)));
      gpu::copy(data.on_gpu(), at, kBytes, stream);
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(30), "a wrong sum");
      COMM_OK(rank, commRedOpDestroy(op, rank.comm));
      gpu::free(apart);
    });
  });
}

// Memory comes and goes, at the same places with other sizes, while the others have it mapped.
TEST(Peers, FindMemoryThatWasAllocatedAnew) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      for (size_t round = 0; round < 100; ++round) {
        const size_t size = 1000 + (round * 7919 + static_cast<size_t>(rank.rank) * 104729) % 50000;
        Floats data(std::max<size_t>(size, 2000));
        data.set(static_cast<float>(rank.rank + 1), stream);
        COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), 1000, commFloat, commSum,
                                    rank.comm, of(stream)));
        // The rest of the memory is as it was.
        data.take(stream);
        gpu::synchronise(stream);
        std::vector<float> seen(2000);
        gpu::copy(seen.data(), data.on_gpu(), 2000 * sizeof(float), stream);
        gpu::synchronise(stream);
        for (size_t i = 0; i < 2000; ++i) {
          const float expected = i < 1000 ? 6 : static_cast<float>(rank.rank + 1);
          if (seen[i] == expected) continue;
          rank.require(false, "element " + std::to_string(i) + " of round " +
                                  std::to_string(round) + " is " + std::to_string(seen[i]));
        }
      }
    });
  });
}

// What is mapped of another rank, and the memory of the proof, ends with the communicator.
TEST(Peers, LeaveNothingBehind) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    const uint64_t before = count("device_bytes");
    with_stream([&](gpu::Stream stream) {
      Floats data(1000);
      check_sum(rank, data, stream, "a wrong sum");
    });
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(count("ipc_open") == 0, "mapped memory is left");
    rank.expect(count("device_bytes") <= before, "device memory is left");
    rank.expect(count("modules") == 0, "modules are left");
    rank.expect(count("streams") == 0, "streams are left");
  });
}

void expect_mismatch(Rank& rank, commResult_t called, gpu::Stream stream,
                     const std::vector<std::string>& parts) {
  (void)called;  // the call may be in time to hear of it
  gpu::synchronise(stream);
  commResult_t state = commSuccess;
  for (int i = 0; i < 6000 && state == commSuccess; ++i) {
    COMM_OK(rank, commGetAsyncError(rank.comm, &state));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  rank.expect(state == commInvalidUsage, "the state is " + std::to_string(state));
  const std::string text = commGetLastError(rank.comm);
  for (const std::string& part : parts)
    rank.expect(text.find(part) != std::string::npos, "\"" + text + "\" lacks " + part);
}

TEST(Peers, ThatMakeDifferentCallsHearOfBoth) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(1000);
      const size_t n = rank.rank == 0 ? 10 : 20;
      expect_mismatch(
          rank,
          commAllReduce(data.on_gpu(), data.on_gpu(), n, commFloat, commSum, rank.comm, of(stream)),
          stream, {"allreduce(count 10", "allreduce(count 20"});
    });
  });
}

TEST(Peers, OfWhichOneSendsMoreThanTheOtherTakesHearOfBoth) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(1000);
      const commResult_t called =
          rank.rank == 0 ? commSend(data.on_gpu(), 20, commFloat, 1, rank.comm, of(stream))
                         : commRecv(data.on_gpu(), 10, commFloat, 0, rank.comm, of(stream));
      expect_mismatch(rank, called, stream, {"count 10", "count 20"});
    });
  });
}

TEST(Peers, OfWhichOneUsesHostMemoryHearOfIt) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Floats data(10);
      std::vector<float> host(10);
      float* const mine = rank.rank == 0 ? data.on_gpu() : host.data();
      expect_mismatch(rank,
                      commAllReduce(mine, mine, 10, commFloat, commSum, rank.comm,
                                    rank.rank == 0 ? of(stream) : nullptr),
                      stream, {"a collective on GPU memory", "allreduce(count 10"});
    });
  });
}

// Host memory in the order of a CUDA stream is used where it is.
TEST(Peers, ThatAllUseHostMemoryInAStreamGetTheirSum) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      std::vector<float> host(1000, 2);
      COMM_OK(rank, commAllReduce(host.data(), host.data(), host.size(), commFloat, commSum,
                                  rank.comm, of(stream)));
      gpu::synchronise(stream);
      rank.expect(host == std::vector<float>(1000, 6), "a wrong sum");
    });
  });
}

}  // namespace
