// Operations captured into CUDA graphs, and launched again and again.
#include <gtest/gtest.h>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using gpu::sum;
using world::Rank;

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
      Floats scaled(100), doubled(100);
      commRedOp_t halves = commSum;
      float half = 0.5f;
      COMM_OK(rank, commRedOpCreatePreMulSum(&halves, &half, commFloat, commScalarHostImmediate,
                                             rank.comm));
      const gpu::Graph graph(stream, [&] {
        COMM_OK(rank, commGroupStart());
        COMM_OK(rank, commAllReduce(scaled.on_gpu(), scaled.on_gpu(), scaled.count(), commFloat,
                                    halves, rank.comm, of(stream)));
        COMM_OK(rank, sum(doubled, rank.comm, stream));
        COMM_OK(rank, commGroupEnd());
      });
      scaled.set(1, stream);
      doubled.set(1, stream);
      for (int launch = 0; launch < 20; ++launch) graph.launch(stream);
      scaled.take(stream);
      doubled.take(stream);
      gpu::synchronise(stream);
      rank.expect(scaled.all(1), "a wrong sum of halves");
      rank.expect(doubled.all(1 << 20), "a wrong sum");
      COMM_OK(rank, commRedOpDestroy(halves, rank.comm));
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
