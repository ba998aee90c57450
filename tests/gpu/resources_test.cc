// What operations on GPU memory hold and leave, and the memory that is special: managed memory,
// scalars on the GPU, a group of one rank.
#include <gtest/gtest.h>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using world::Kind;
using world::Rank;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "asks the double what is live"

uint64_t live(const char* what) {
  return gpu::control<uint64_t(const char*)>("cuda_double_count")(what);
}

TEST(Communicator, LeavesNothingOnTheGpu) {
  NEED_DOUBLE();
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    const uint64_t before = live("pinned_bytes");  // of the communicator, if it met on GPUs
    Floats data(100000);
    const uint64_t own = live("pinned_bytes") - before;
    const auto pinned = [&] { return live("pinned_bytes") - own; };
    data.set(1, stream);
    COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat, commSum,
                                rank.comm, of(stream)));
    rank.expect(pinned() > before, "the library holds no pinned memory");
    commMemStats_t stats{};
    stats.size = sizeof stats;
    COMM_OK(rank, commGetMemStats(rank.comm, &stats));
    rank.expect(stats.pinnedBytes == pinned(),
                "commGetMemStats does not tell of the pinned memory");
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(pinned() == 0, "pinned memory is left");
    rank.expect(live("events") == 0, "an event is left");
    rank.expect(live("pageable") == 0, "something was copied through pageable memory");
    data.take(stream);
    gpu::synchronise(stream);
    rank.expect(data.all(2), "commDestroy did not wait for the operation");
  });
}

TEST(OneRank, CopiesOnTheGpuWithoutMemoryOfTheLibrary) {
  NEED_DOUBLE();
  world::run({.nranks = 1, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    Floats in(5000), out(5000);
    const uint64_t pinned = live("pinned_bytes"), copies = live("d2d");
    in.set(3, stream);
    COMM_OK(rank, commGroupStart());
    COMM_OK(rank, commAllGather(in.on_gpu(), out.on_gpu(), 5000, commFloat, rank.comm, of(stream)));
    COMM_OK(rank, commGroupEnd());
    COMM_OK(rank, commAllReduce(out.on_gpu(), out.on_gpu(), 5000, commFloat, commSum, rank.comm,
                                of(stream)));
    out.take(stream);
    gpu::synchronise(stream);
    rank.expect(out.all(3), "a wrong copy");
    rank.expect(live("pinned_bytes") == pinned, "pinned memory was allocated");
    rank.expect(live("d2d") == copies + 1, "not one copy on the GPU");
  });
}

TEST(Scalar, OnTheGpuIsReadInTheOrderOfTheStream) {
  NEED_GPU();
  for (const int nranks : {1, 2}) {
    world::run({.nranks = nranks}, [](Rank& rank) {
      gpu::use(0);
      const gpu::Stream stream = gpu::create_stream();
      for (const size_t count : {100, 100000}) {
        Floats data(count), scalar(1), later(1);
        rank.meet();  // to allocate waits for what runs on the GPU
        later.set(7, stream);
        commRedOp_t op;
        COMM_OK(rank, commRedOpCreatePreMulSum(&op, scalar.on_gpu(), commFloat, commScalarDevice,
                                               rank.comm));
        scalar.set(5, stream);
        data.set(2, stream);
        COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), count, commFloat, op, rank.comm,
                                    of(stream)));
        gpu::copy(scalar.on_gpu(), later.on_gpu(), sizeof(float), stream);
        data.take(stream);
        gpu::synchronise(stream);
        rank.expect(data.all(10.0F * static_cast<float>(rank.nranks)), "a wrong sum");
        COMM_OK(rank, commRedOpDestroy(op, rank.comm));
      }
      gpu::destroy(stream);
    });
  }
}

TEST(ManagedMemory, GoesTheWayOfTheGpu) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    auto* data = static_cast<float*>(gpu::allocate_managed(4000));
    for (int i = 0; i < 1000; ++i) data[i] = 4;
    COMM_OK(rank, commAllReduce(data, data, 1000, commFloat, commSum, rank.comm, of(stream)));
    gpu::synchronise(stream);
    rank.expect(data[0] == 8 && data[999] == 8, "a wrong sum");
    gpu::free(data);
    gpu::destroy(stream);
  });
}

// The same key as a call on host memory before it, which is remembered.
TEST(SmallCall, OnTheGpuIsToldFromTheSameOnTheHost) {
  NEED_GPU();
  if (gpu::executor_is_forced()) GTEST_SKIP() << "the ranks share the default stream";
  world::run({.nranks = 2}, [](Rank& rank) {
    float host = 0;
    for (int i = 0; i < 5; ++i) {
      host = 1;
      COMM_OK(rank, commAllReduce(&host, &host, 1, commFloat, commSum, rank.comm, nullptr));
      rank.expect(host == 2, "a wrong sum on the host");
    }
    gpu::use(0);
    {
      Floats data(1);
      data.set(3, gpu::kDefaultStream);
      COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), 1, commFloat, commSum, rank.comm,
                                  nullptr));
      data.take(gpu::kDefaultStream);
      gpu::synchronise(gpu::kDefaultStream);
      rank.expect(data.all(6), "a wrong sum on the GPU");
    }
    host = 1;
    COMM_OK(rank, commAllReduce(&host, &host, 1, commFloat, commSum, rank.comm, nullptr));
    rank.expect(host == 2, "a wrong sum on the host after that");
  });
}

TEST(NonBlockingCommunicator, HasDoneItsCallWhenItReturns) {
  NEED_GPU();
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  world::run({.nranks = 2, .connected = false}, [&](Rank& rank) {
    gpu::use(0);
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = 0;
    const commResult_t begun = commInitRankConfig(&rank.comm, rank.nranks, id, rank.rank, &config);
    rank.require(begun == commSuccess || begun == commInProgress, "commInitRankConfig failed");
    commResult_t state = commInProgress;
    while (state == commInProgress) COMM_OK(rank, commGetAsyncError(rank.comm, &state));
    rank.require(state == commSuccess, "the group did not assemble");
    {
      Floats data(10);
      const gpu::Stream stream = gpu::create_stream();
      data.set(1, stream);
      COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), 10, commFloat, commSum, rank.comm,
                                  of(stream)));
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(2), "a wrong sum");
      gpu::destroy(stream);
    }
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  });
}

// A child has none of the GPU memory that its parent's communicators have left, and must not wait
// for it whenever it ends one of its own: each look takes a call, and would come every 200 us for 1
// s.
TEST(Communicator, OfAForkedChildDoesNotWaitForWhatItsParentsHaveLeft) {
  NEED_DOUBLE();
  if (world::kThreadSanitized) GTEST_SKIP() << "forks after threads existed";
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(100);
      const gpu::Graph graph(stream, [&] { COMM_OK(rank, gpu::sum(data, rank.comm, stream)); });
      // The graph keeps what is left until it ends, and nobody makes a call afterwards.
      graph.launch(stream);
      gpu::synchronise(stream);
      COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
      graph.launch(stream);
      gpu::synchronise(stream);
    }
    gpu::destroy(stream);
  });
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    Floats data(100);
    data.set(1, stream);
    COMM_OK(rank, gpu::sum(data, rank.comm, stream));
    data.take(stream);
    gpu::synchronise(stream);
    rank.expect(data.all(2), "a wrong sum");
    const auto calls = gpu::control<uint64_t(const char*)>("cuda_double_calls");
    const uint64_t before = calls("cuCtxPushCurrent_v2");
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(calls("cuCtxPushCurrent_v2") < before + 200, "it waited for what is not there");
    gpu::destroy(stream);
  });
}

}  // namespace
