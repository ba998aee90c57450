// Operations captured into CUDA graphs, and launched again and again.
#include <gtest/gtest.h>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using gpu::sum;
using world::Rank;

// How many kernels of the executor have ended in this process; 0 where the driver does not say.
uint64_t executions() {
  if (!gpu::is_double()) return 0;
  return gpu::control<uint64_t(const char*)>("cuda_double_launches")("libcomm_execute_float32");
}

TEST(Graph, DoesItsOperationsAtEachLaunch) {
  NEED_GPU();
  world::run({.nranks = 3, .environment = {{"COMM_GPU_STAGING", "1M"}}}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats small(100), large(1 << 20);
      const gpu::Graph graph(stream, [&] {
        COMM_OK(rank, sum(small, rank.comm, stream));
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, sum(large, rank.comm, stream));
        COMM_OK(rank, sum(small, rank.comm, stream));
        COMM_OK(rank, commGroupEnd());
      });
      for (int launch = 1; launch <= 6; ++launch) {
        small.set(static_cast<float>(launch), stream);
        large.set(static_cast<float>(rank.rank * launch), stream);
        graph.launch(stream);
        if (launch % 2 == 0) graph.launch(stream);  // at once again
        small.take(stream);
        large.take(stream);
        // Others, outside of the graph, between its launches.
        COMM_OK(rank, sum(large, rank.comm, stream));
        gpu::synchronise(stream);
        const float times = launch % 2 == 0 ? 81 : 9;
        rank.expect(small.all(times * static_cast<float>(launch)), "a wrong small sum");
        rank.expect(large.all(static_cast<float>(launch * (launch % 2 == 0 ? 9 : 3))),
                    "a wrong large sum");
      }
    }
    gpu::destroy(stream);
  });
}

// The second begins with what the first has left, though only the library says so.
TEST(Graph, DoesCallsOfTwoStreamsOneAfterTheOther) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream first = gpu::create_stream(), second = gpu::create_stream();
    for (const size_t count : {100, 200000}) {
      Floats data(count);
      rank.meet();  // to allocate waits for what runs on the GPU
      const gpu::Graph graph(first, [&] {
        gpu::follow(second, first);
        for (int i = 0; i < 5; ++i)
          COMM_OK(rank, sum(data, rank.comm, i % 2 == 0 ? first : second));
        gpu::follow(first, second);
      });
      for (int launch = 0; launch < 3; ++launch) {
        data.set(1, first);
        graph.launch(first);
        data.take(first);
        gpu::synchronise(first);
        rank.expect(data.all(32), "a wrong sum of sums");
      }
    }
    gpu::destroy(first);
    gpu::destroy(second);
  });
}

// Where the executor is there, one operation takes the engine and the one after it does not: the
// engine must be through with a launch when the next one begins.
TEST(Graph, OfOperationsThatGoDifferentWaysMayBeLaunchedAtOnceAgain) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats doubled(100);
      const gpu::Graph graph(stream, [&] {
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, commBarrier(rank.comm, of(stream)));
        COMM_OK(rank, sum(doubled, rank.comm, stream));
        COMM_OK(rank, commGroupEnd());
      });
      doubled.set(1, stream);
      for (int launch = 0; launch < 20; ++launch) graph.launch(stream);
      doubled.take(stream);
      gpu::synchronise(stream);
      rank.expect(doubled.all(1 << 20), "a wrong sum");
    }
    gpu::destroy(stream);
  });
}

// A scalar of the host is taken in the call, one on the GPU at each launch.
TEST(Graph, MultipliesByTheScalarThatIsThenOnTheGpu) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    for (const size_t count : {100, 200000}) {
      Floats by_host(count), by_gpu(count), scalar(1);
      float three = 3;
      commRedOp_t thrice = commSum, scaled = commSum;
      COMM_OK(rank, commRedOpCreatePreMulSum(&thrice, &three, commFloat, commScalarHostImmediate,
                                             rank.comm));
      COMM_OK(rank, commRedOpCreatePreMulSum(&scaled, scalar.on_gpu(), commFloat, commScalarDevice,
                                             rank.comm));
      rank.meet();  // to allocate waits for what runs on the GPU
      const gpu::Graph graph(stream, [&] {
        COMM_OK(rank, commAllReduce(by_host.on_gpu(), by_host.on_gpu(), count, commFloat, thrice,
                                    rank.comm, of(stream)));
        COMM_OK(rank, commAllReduce(by_gpu.on_gpu(), by_gpu.on_gpu(), count, commFloat, scaled,
                                    rank.comm, of(stream)));
      });
      COMM_OK(rank, commRedOpDestroy(thrice, rank.comm));
      COMM_OK(rank, commRedOpDestroy(scaled, rank.comm));
      const uint64_t before = executions();
      for (int launch = 1; launch <= 4; ++launch) {
        const auto value = static_cast<float>(launch);
        by_host.set(1 + static_cast<float>(rank.rank), stream);
        by_gpu.set(1, stream);
        scalar.set(rank.rank == 0 ? value : 10 * value, stream);
        graph.launch(stream);
        by_host.take(stream);
        by_gpu.take(stream);
        gpu::synchronise(stream);
        rank.expect(by_host.all(9), "a wrong sum by the host's scalar");
        rank.expect(by_gpu.all(11 * value), "a wrong sum by the scalar on the GPU");
      }
      if (gpu::executor_is_forced() && gpu::is_double())
        rank.expect(executions() - before >= 8, "not all sums were the executor's");
    }
    gpu::destroy(stream);
  });
}

// Also where one rank sends nothing, and where some blocks are large.
TEST(Graph, MovesTheBlocksOfAnAllToAllV) {
  NEED_GPU();
  world::run({.nranks = 3}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats small(100), large(100000), got_small(100), got_large(100000);
      // To the next rank, but from the last.
      const bool sends = rank.rank<2, receives = rank.rank> 0;
      const std::vector<size_t> displs(3, 0);
      const auto exchange = [&](Floats& in, Floats& out) {
        std::vector<size_t> send(3, 0), receive(3, 0);
        if (sends) send[static_cast<size_t>(rank.rank + 1)] = in.count();
        if (receives) receive[static_cast<size_t>(rank.rank - 1)] = out.count();
        COMM_OK(rank,
                commAlltoAllv(in.on_gpu(), send.data(), displs.data(), out.on_gpu(), receive.data(),
                              displs.data(), commFloat, rank.comm, of(stream)));
      };
      rank.meet();  // to allocate waits for what runs on the GPU
      const gpu::Graph graph(stream, [&] {
        exchange(small, got_small);
        exchange(large, got_large);
      });
      for (int launch = 1; launch <= 5; ++launch) {
        small.set(static_cast<float>(10 * launch + rank.rank), stream);
        large.set(static_cast<float>(20 * launch + rank.rank), stream);
        got_small.set(-1, stream);
        got_large.set(-1, stream);
        graph.launch(stream);
        got_small.take(stream);
        got_large.take(stream);
        gpu::synchronise(stream);
        const auto from = static_cast<float>(rank.rank - 1);
        rank.expect(got_small.all(receives ? static_cast<float>(10 * launch) + from : -1),
                    "a wrong small block");
        rank.expect(got_large.all(receives ? static_cast<float>(20 * launch) + from : -1),
                    "a wrong large block");
      }
    }
    gpu::destroy(stream);
  });
}

TEST(Graph, ThatIsNeverLaunchedLeavesNothing) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(100);
      {
        const gpu::Graph graph(stream, [&] { COMM_OK(rank, sum(data, rank.comm, stream)); });
      }
      data.set(1, stream);
      COMM_OK(rank, sum(data, rank.comm, stream));
      data.take(stream);
      gpu::synchronise(stream);
      rank.expect(data.all(2), "a wrong sum");
    }
    gpu::destroy(stream);
  });
}

// Its streams go on; what it would have done is not done.
TEST(Graph, OfACommunicatorThatHasEndedDoesNotHang) {
  NEED_GPU();
  world::run({.nranks = 2}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(100);
      const gpu::Graph graph(stream, [&] { COMM_OK(rank, sum(data, rank.comm, stream)); });
      data.set(1, stream);
      graph.launch(stream);
      gpu::synchronise(stream);
      COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
      graph.launch(stream);
      gpu::synchronise(stream);
    }
    gpu::destroy(stream);
  });
}

// The engine lets mappings go, for which the driver waits for all streams, when a graph is captured
// and launched, which needs the engine.
TEST(Graph, MayBeLaunchedWhileMappingsOfOthersMemoryEnd) {
  if (!gpu::is_double()) GTEST_SKIP() << "needs a stream that the double pauses";
  const auto pause = gpu::control<void(void*)>("cuda_double_pause");
  const auto resume = gpu::control<void(void*)>("cuda_double_resume");
  const auto begin = [](int) { gpu::use(0); };
  world::run({.nranks = 2, .kind = world::Kind::kProcesses, .begin = begin}, [&](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1000);
      data.set(1, stream);
      COMM_OK(rank, sum(data, rank.comm, stream));  // the first call on memory waits for its end
      for (int round = 0; round < 60; ++round) {
        comm_t other = nullptr;
        COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &other, nullptr));
        data.set(1, stream);
        COMM_OK(rank, sum(data, other, stream));
        gpu::synchronise(stream);
        // What the other communicator has mapped stays while a stream of this one is held up.
        pause(stream);
        COMM_OK(rank, sum(data, rank.comm, stream));
        COMM_OK(rank, commDestroy(other));
        resume(stream);
        gpu::synchronise(stream);
        const gpu::Graph graph(stream, [&] { COMM_OK(rank, sum(data, rank.comm, stream)); });
        graph.launch(stream);
        data.take(stream);
        gpu::synchronise(stream);
        rank.expect(data.all(8), "a wrong sum");
      }
    }
    gpu::destroy(stream);
  });
}

}  // namespace
