// Rules that operations on GPU memory keep where it is easy not to: what host functions may do, who
// frees what when, what ranks must think alike, what a graph may be mixed with.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using gpu::sum;
using world::Kind;
using world::Rank;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "holds a stream back, which only the double can"

// The stream comes to the operation when the communicator is no more: the host function, in which
// the driver must not be called, has the last of it.
TEST(HeldBackStream, MayOutliveTheCommunicator) {
  NEED_DOUBLE();
  std::atomic<int> called{0};
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1000);
      gpu::control<void(void*)>("cuda_double_pause")(stream);
      COMM_OK(rank, sum(data, rank.comm, stream));
      ++called;
      while (called < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      gpu::control<void(void*)>("cuda_double_resume")(stream);
      gpu::synchronise(stream);
    }
    gpu::destroy(stream);
  });
}

// Nor is it waited for by an abort that finds what another rank has left: freeing pinned memory
// would.
TEST(HeldBackStream, DoesNotKeepAnAbort) {
  NEED_DOUBLE();
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1000);
      rank.meet();
      gpu::control<void(void*)>("cuda_double_pause")(stream);
      COMM_OK(rank, sum(data, rank.comm, stream));
      rank.meet();
      if (rank.rank == 1) rank.meet();  // until rank 0's stream is done with its operation
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      gpu::control<void(void*)>("cuda_double_resume")(stream);
      gpu::synchronise(stream);
      if (rank.rank == 0) rank.meet();
    }
    gpu::destroy(stream);
  });
}

// Freeing pinned memory waits for all that the GPU does: a rank must not do it while another one
// waits for it in a stream.
TEST(CommDestroy, DoesNotWaitForStreamsThatWaitForThisRank) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    comm_t other = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &other, nullptr));
    {
      Floats data(100);
      data.set(1, stream);
      COMM_OK(rank, sum(data, other, stream));
      COMM_OK(rank, sum(data, rank.comm, stream));
      gpu::synchronise(stream);
      if (rank.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      COMM_OK(rank, commDestroy(other));
      COMM_OK(rank, sum(data, rank.comm, stream));
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(8), "a wrong sum");
    }
    gpu::destroy(stream);
  });
}

// One rank has nothing to send and nothing to receive, on the default stream.
TEST(AllToAllV, OfARankWithoutBytesGoesTheWayOfTheOthers) {
  NEED_DOUBLE();
  world::run({.nranks = 3, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    Floats in(200), out(200);
    in.set(static_cast<float>(rank.rank + 1), gpu::kDefaultStream);
    out.set(0, gpu::kDefaultStream);
    std::vector<size_t> counts(3, 0), displs(3, 0);
    if (rank.rank < 2) counts[static_cast<size_t>(1 - rank.rank)] = 200;
    for (int i = 0; i < 3; ++i)
      COMM_OK(rank, commAlltoAllv(in.on_gpu(), counts.data(), displs.data(), out.on_gpu(),
                                  counts.data(), displs.data(), commFloat, rank.comm, nullptr));
    COMM_OK(rank, sum(in, rank.comm, gpu::kDefaultStream));
    in.take(gpu::kDefaultStream);
    out.take(gpu::kDefaultStream);
    gpu::synchronise(gpu::kDefaultStream);
    rank.expect(in.all(6), "a wrong sum afterwards");
    rank.expect(out.all(rank.rank == 2 ? 0 : static_cast<float>(2 - rank.rank)),
                "wrong bytes came");
  });
}

// Collectives of a group come first, whatever the order of the calls.
TEST(AllToAllV, OfAGroupComesBeforeItsMessages) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats message(64), in(64), out(64);
      message.set(rank.rank == 0 ? 5 : 0, stream);
      in.set(static_cast<float>(rank.rank + 1), stream);
      std::vector<size_t> counts(2, 0), displs(2, 0);
      counts[static_cast<size_t>(1 - rank.rank)] = 64;
      const auto exchange = [&] {
        COMM_OK(rank,
                commAlltoAllv(in.on_gpu(), counts.data(), displs.data(), out.on_gpu(),
                              counts.data(), displs.data(), commFloat, rank.comm, of(stream)));
      };
      COMM_OK(rank, commGroupStart());
      if (rank.rank == 0)
        COMM_OK(rank, commSend(message.on_gpu(), 64, commFloat, 1, rank.comm, of(stream)));
      exchange();
      if (rank.rank == 1)
        COMM_OK(rank, commRecv(message.on_gpu(), 64, commFloat, 0, rank.comm, of(stream)));
      COMM_OK(rank, commGroupEnd());
      message.take(stream);
      out.take(stream);
      gpu::synchronise(stream);
      rank.expect(message.all(5), "another message came");
      rank.expect(out.all(static_cast<float>(2 - rank.rank)), "another part came");
    }
    gpu::destroy(stream);
  });
}

// The calling thread and the engine would otherwise work for one communicator at the same time.
TEST(Graph, MayBeLaunchedRightBeforeACallOnHostMemory) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(100);
      data.set(0, stream);
      const gpu::Graph graph(stream, [&] { COMM_OK(rank, sum(data, rank.comm, stream)); });
      for (int i = 0; i < 50; ++i) {
        graph.launch(stream);
        gpu::synchronise(stream);
        float one = 1;
        COMM_OK(rank, commAllReduce(&one, &one, 1, commFloat, commSum, rank.comm, nullptr));
        rank.expect(one == 2, "a wrong sum");
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, commBarrier(rank.comm, nullptr));
        COMM_OK(rank, commGroupEnd());
      }
    }
    gpu::destroy(stream);
  });
}

// What is wrong in one process alone is no failure of the communicator.
TEST(Capture, OfAPartOfAGroupIsRefused) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream first = gpu::create_stream();
    const gpu::Stream second = gpu::create_stream();
    {
      Floats a(10), b(10);
      a.set(1, first);
      gpu::synchronise(first);
      const auto group = [&](gpu::Stream of_a, const float* host) {
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, sum(a, rank.comm, of_a));
        float result = 0;
        if (host == nullptr)
          COMM_OK(rank, sum(b, rank.comm, second));
        else
          COMM_OK(rank, commAllReduce(host, &result, 1, commFloat, commSum, rank.comm, nullptr));
        COMM_FAILS(rank, commGroupEnd(), commInvalidUsage,
                   host == nullptr ? "graph" : "host memory");
      };
      {
        const gpu::Graph graph(second, [&] { group(first, nullptr); });
      }
      const float one = 1;
      {
        const gpu::Graph graph(second, [&] { group(second, &one); });
      }
      COMM_OK(rank, sum(a, rank.comm, first));
      a.take(first);
      gpu::synchronise(first);
      rank.expect(a.all(2), "a wrong sum afterwards");
    }
    gpu::destroy(first);
    gpu::destroy(second);
  });
}

// As NCCL takes the communicator's GPU, whichever is current in the thread.
TEST(DefaultStream, IsThatOfTheMemorysGpu) {
  if (gpu::count() < 2) GTEST_SKIP() << "needs two GPUs";
  gpu::use(0);
  comm_t comms[2] = {};
  ASSERT_EQ(commInitAll(comms, 2, nullptr), commSuccess) << commGetLastError(nullptr);
  std::vector<std::unique_ptr<Floats>> data;
  for (int r = 0; r < 2; ++r) {
    gpu::use(r);
    data.push_back(std::make_unique<Floats>(100));
    data.back()->set(1, gpu::kDefaultStream);
  }
  ASSERT_EQ(commGroupStart(), commSuccess);  // GPU 1 is current
  for (size_t r = 0; r < 2; ++r)
    EXPECT_EQ(sum(*data[r], comms[r], gpu::kDefaultStream), commSuccess)
        << commGetLastError(comms[r]);
  EXPECT_EQ(commGroupEnd(), commSuccess);
  for (int r = 0; r < 2; ++r) {
    gpu::use(r);
    data[static_cast<size_t>(r)]->take(gpu::kDefaultStream);
    gpu::synchronise(gpu::kDefaultStream);
    EXPECT_TRUE(data[static_cast<size_t>(r)]->all(2));
    data[static_cast<size_t>(r)] = nullptr;
    EXPECT_EQ(commDestroy(comms[r]), commSuccess);
  }
}

TEST(Scalar, InPinnedMemoryIsReadInTheOrderOfTheStream) {
  NEED_DOUBLE();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    auto* scalar = static_cast<float*>(gpu::allocate_pinned(sizeof(float)));
    {
      Floats data(10);
      commRedOp_t op;
      COMM_OK(rank, commRedOpCreatePreMulSum(&op, scalar, commFloat, commScalarDevice, rank.comm));
      data.set(1, stream);
      gpu::synchronise(stream);
      *scalar = 2;
      gpu::control<void(void*)>("cuda_double_pause")(stream);
      COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), 10, commFloat, op, rank.comm,
                                  of(stream)));
      *scalar = 3;
      gpu::control<void(void*)>("cuda_double_resume")(stream);
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(6), "a wrong sum");
      COMM_OK(rank, commRedOpDestroy(op, rank.comm));
    }
    gpu::free_pinned(scalar);
    gpu::destroy(stream);
  });
}

}  // namespace
