// Operations on GPU memory in the order of streams: a call returns before anything has happened,
// the order on a communicator is that of the calls, ranks may share a stream.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using gpu::sum;
using world::Kind;
using world::Rank;
using world::World;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "holds a stream back, which only the double can"

void pause(gpu::Stream stream) { gpu::control<void(void*)>("cuda_double_pause")(stream); }
void resume(gpu::Stream stream) { gpu::control<void(void*)>("cuda_double_resume")(stream); }

TEST(Call, ReturnsBeforeItsStreamHasComeToIt) {
  NEED_DOUBLE();
  for (const size_t count : {size_t{10}, size_t{3} << 20}) {
    world::run({.nranks = 2}, [&](Rank& rank) {
      gpu::use(0);
      const gpu::Stream stream = gpu::create_stream();
      {
        Floats data(count);
        data.set(static_cast<float>(rank.rank + 1), stream);
        gpu::synchronise(stream);
        pause(stream);
        data.set(10, stream);
        COMM_OK(rank, sum(data, rank.comm, stream));
        COMM_OK(rank, sum(data, rank.comm, stream));
        data.take(stream);
        rank.expect(!gpu::is_idle(stream), "a paused stream is idle");
        resume(stream);
        gpu::synchronise(stream);
        rank.expect(data.all(40), "two sums of what was set before are wrong");
      }
      gpu::destroy(stream);
    });
  }
}

// Rank 0's first operation is held back, the second is not: both ranks do the first one first.
TEST(Order, OfACommunicatorIsThatOfTheCalls) {
  NEED_DOUBLE();
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream first = gpu::create_stream();
    const gpu::Stream second = gpu::create_stream();
    {
      Floats a(1000), b(1000);
      a.set(1, first);
      b.set(2, second);
      if (rank.rank == 0) pause(first);
      COMM_OK(rank, sum(a, rank.comm, first));
      COMM_OK(rank, commBroadcast(b.on_gpu(), b.on_gpu(), b.count(), commFloat, 1, rank.comm,
                                  of(second)));
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      if (rank.rank == 0) resume(first);
      a.take(first);
      b.take(second);
      gpu::synchronise(first);
      gpu::synchronise(second);
      rank.expect(a.all(2) && b.all(2), "wrong results");
    }
    gpu::destroy(first);
    gpu::destroy(second);
  });
}

// What one group has on two streams: the result is there for whoever waits for either.
TEST(Group, OfTwoStreamsIsOrderedInBoth) {
  NEED_GPU();
  world::run({.nranks = 3}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream first = gpu::create_stream();
    const gpu::Stream second = gpu::create_stream();
    {
      Floats a(70000), b(50);
      for (int round = 1; round < 20; ++round) {
        a.set(static_cast<float>(round), first);
        b.set(static_cast<float>(2 * round), second);
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, sum(a, rank.comm, first));
        COMM_OK(rank, sum(b, rank.comm, second));
        COMM_OK(rank, commGroupEnd());
        a.take(second);
        b.take(first);
        gpu::synchronise(first);
        gpu::synchronise(second);
        rank.expect(a.all(3.0F * static_cast<float>(round)), "wrong values on the first stream");
        rank.expect(b.all(6.0F * static_cast<float>(round)), "wrong values on the second stream");
      }
    }
    gpu::destroy(first);
    gpu::destroy(second);
  });
}

// One thread, several ranks, one stream: in a group none of them stands in the others' way.
TEST(Group, OfSeveralRanksMayShareAStream) {
  NEED_GPU();
  if (gpu::executor_is_forced()) GTEST_SKIP() << "kernels that wait for each other may not";
  constexpr int kRanks = 3;
  gpu::use(0);
  std::vector<comm_t> comms(kRanks);
  const std::vector<int> gpus(kRanks, 0);
  ASSERT_EQ(commInitAll(comms.data(), kRanks, gpus.data()), commSuccess)
      << commGetLastError(nullptr);
  for (const gpu::Stream stream : {gpu::kDefaultStream, gpu::kPerThreadStream}) {
    for (const size_t count : {size_t{5}, size_t{5} << 20}) {
      std::vector<std::unique_ptr<Floats>> data;
      for (int r = 0; r < kRanks; ++r) {
        data.push_back(std::make_unique<Floats>(count));
        data.back()->set(static_cast<float>(r + 1), stream);
      }
      ASSERT_EQ(commGroupStart(), commSuccess);
      for (size_t r = 0; r < kRanks; ++r)
        EXPECT_EQ(commAllReduce(data[r]->on_gpu(), data[r]->on_gpu(), count, commFloat, commSum,
                                comms[r], of(stream)),
                  commSuccess);
      ASSERT_EQ(commGroupEnd(), commSuccess) << commGetLastError(nullptr);
      for (const auto& each : data) each->take(stream);
      gpu::synchronise(stream);
      for (const auto& each : data) EXPECT_TRUE(each->all(6));
    }
  }
  for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
}

// Bytes that are only moved may be anywhere, whatever their type is called.
TEST(Call, OnMemoryThatIsNotAlignedMovesItsBytes) {
  NEED_GPU();
  world::run({.nranks = 3}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    for (const size_t count : {7, 5000}) {
      const size_t bytes = count * sizeof(float);
      auto* in = static_cast<std::byte*>(gpu::allocate(bytes + 1));
      auto* out = static_cast<std::byte*>(gpu::allocate(3 * bytes + 3));
      rank.meet();  // to allocate waits for what runs on the GPU
      gpu::fill(in + 1, static_cast<unsigned char>(rank.rank + 1), bytes, stream);
      gpu::fill(out, 9, 3 * bytes + 3, stream);
      COMM_OK(rank, commAllGather(in + 1, out + 3, count, commFloat, rank.comm, of(stream)));
      std::vector<unsigned char> seen(3 * bytes + 3), wanted(3, 9);
      for (int r = 1; r <= 3; ++r)
        wanted.insert(wanted.end(), bytes, static_cast<unsigned char>(r));
      gpu::synchronise(stream);
      gpu::copy(seen.data(), out, seen.size(), stream);
      gpu::synchronise(stream);
      rank.expect(seen == wanted, "wrong bytes");
      gpu::free(in);
      gpu::free(out);
    }
    gpu::destroy(stream);
  });
}

// More than the executor keeps programs for.
TEST(Call, MayHaveManySizes) {
  NEED_GPU();
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1500);
      const auto pinned = [&] {
        commMemStats_t stats{};
        stats.size = sizeof stats;
        COMM_OK(rank, commGetMemStats(rank.comm, &stats));
        return stats.pinnedBytes;
      };
      COMM_OK(rank, sum(data, rank.comm, stream));
      gpu::synchronise(stream);
      const auto before = pinned();
      data.set(1, stream);
      for (size_t count = 1; count <= data.count(); ++count) {
        COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), count, commFloat, commMax,
                                    rank.comm, of(stream)));
        const std::vector<size_t> counts{count, 3}, displs{0, count};
        COMM_OK(rank,
                commAllGatherv(data.on_gpu() + (rank.rank == 0 ? 0 : count),
                               counts[static_cast<size_t>(rank.rank)], data.on_gpu(), counts.data(),
                               displs.data(), commFloat, rank.comm, of(stream)));
        if (count + 3 >= data.count()) break;
        if (count % 100 == 0) gpu::synchronise(stream);
      }
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(1), "a wrong sum");
      rank.expect(pinned() == before, "pinned memory has grown");
    }
    gpu::destroy(stream);
  });
}

// Host memory, which operations use where it is, in the order of a CUDA stream.
TEST(HostMemory, IsUsedInTheOrderOfTheStream) {
  NEED_DOUBLE();
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    auto* data = static_cast<float*>(gpu::allocate_pinned(sizeof(float)));
    *data = 1;
    pause(stream);
    COMM_OK(rank, commAllReduce(data, data, 1, commFloat, commSum, rank.comm, of(stream)));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    rank.expect(*data == 1, "the sum is there before its stream has come to it");
    *data = 5;
    resume(stream);
    gpu::synchronise(stream);
    rank.expect(*data == 10, "a wrong sum");
    gpu::free_pinned(data);
    gpu::destroy(stream);
  });
}

// A call on host memory without a stream comes after those on GPU memory before it.
TEST(HostMemory, WithoutAStreamWaitsForOperationsOnTheGpu) {
  NEED_GPU();
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(2 << 20);
      data.set(1, stream);
      COMM_OK(rank, sum(data, rank.comm, stream));
      float one = 1;
      COMM_OK(rank, commAllReduce(&one, &one, 1, commFloat, commSum, rank.comm, nullptr));
      rank.expect(one == 2, "a wrong sum");
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(2), "a wrong sum on the GPU");
    }
    gpu::destroy(stream);
  });
}

}  // namespace
