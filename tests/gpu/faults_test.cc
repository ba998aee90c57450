// What goes wrong with GPU memory: wrong pointers and streams, ranks that die, aborted
// communicators, a GPU that has failed. Every wait of a stream ends.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/faults/scene.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Floats;
using gpu::of;
using world::Kind;
using world::Rank;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "needs faults that only the double has"

// One rank of two whose calls fail before anything is sent.
class Arguments : public testing::Test {
 protected:
  void SetUp() override {
    NEED_GPU();
    gpu::use(0);
    ASSERT_EQ(commInitAll(comms_, 2, nullptr), commSuccess) << commGetLastError(nullptr);
    stream_ = gpu::create_stream();
  }
  void TearDown() override {
    if (stream_ == nullptr) return;
    gpu::destroy(stream_);
    for (const comm_t comm : comms_) EXPECT_EQ(commDestroy(comm), commSuccess);
  }
  void fails(const void* in, void* out, cudaStream_t stream, commResult_t wanted,
             const char* part) {
    EXPECT_EQ(commAllReduce(in, out, 10, commFloat, commSum, comms_[0], stream), wanted);
    const std::string text = commGetLastError(comms_[0]);
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  comm_t comms_[2] = {};
  gpu::Stream stream_ = nullptr;
};

TEST_F(Arguments, OfTwoKindsOfMemoryAreRefused) {
  Floats data(10);
  float host[10] = {};
  fails(host, data.on_gpu(), of(stream_), commInvalidArgument, "host memory");
  fails(data.on_gpu(), host, of(stream_), commInvalidArgument, "GPU memory");
}

TEST_F(Arguments, OnAHostStreamAreRefused) {
  Floats data(10);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  fails(data.on_gpu(), data.on_gpu(), stream, commInvalidArgument, "commHostStreamCreate");
  EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
}

TEST_F(Arguments, OfAnotherGpuAreRefused) {
  if (gpu::count() < 2) GTEST_SKIP() << "only one GPU here";
  gpu::use(1);
  float* other = static_cast<float*>(gpu::allocate(40));
  gpu::use(0);
  fails(other, other, of(stream_), commInvalidArgument, "memory of GPU 1");
  gpu::use(1);
  gpu::free(other);
  gpu::use(0);
}

TEST_F(Arguments, InFreedMemoryAreRefused) {
  void* freed = gpu::allocate(40);
  gpu::free(freed);
  fails(freed, freed, of(stream_), commInvalidArgument, "freed");
}

void end_after_failure(Rank& rank, Floats& data, gpu::Stream stream) {
  data.take(stream);
  gpu::synchronise(stream);  // the point: it comes back
  commResult_t state = commSuccess;
  for (int i = 0; i < 60000 && state == commSuccess; ++i) {
    COMM_OK(rank, commGetAsyncError(rank.comm, &state));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  rank.expect(state != commSuccess, "no failure is reported");
}

TEST(DeadPeer, EndsTheWaitsOfStreams) {
  NEED_DOUBLE();
  faults::Scene& scene = faults::Scene::make();
  world::run({.nranks = 3, .kind = Kind::kProcesses, .victims = {1}}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    Floats data(1000);
    data.set(1, stream);
    const auto sum = [&] {
      return commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat, commSum,
                           rank.comm, of(stream));
    };
    COMM_OK(rank, sum());
    gpu::synchronise(stream);
    ++scene.done;
    faults::await([&] { return scene.done == 3; }, "the first operation did not end everywhere");
    if (rank.rank == 1) faults::die();
    for (int i = 0; i < 3; ++i)
      if (sum() != commSuccess) break;
    end_after_failure(rank, data, stream);
    const std::string text = commGetLastError(rank.comm);
    rank.expect(text.find("rank 1") != std::string::npos, "rank 1 is not named: " + text);
    (void)commAbort(std::exchange(rank.comm, nullptr));
    _exit(rank.failures.empty() ? 0 : 1);
  });
}

TEST(Abort, EndsTheWaitsOfStreams) {
  NEED_GPU();
  std::atomic<bool> looked{false};
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1000);
      data.set(1, stream);
      rank.meet();
      // Rank 1 does not come.
      if (rank.rank == 0) {
        COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat, commSum,
                                    rank.comm, of(stream)));
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        rank.expect(!gpu::is_idle(stream), "an operation ended without rank 1");
        looked = true;
      }
      while (!looked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      gpu::synchronise(stream);
    }
    gpu::destroy(stream);
  });
}

// Also where one of the calls is small and the other is not, which may go different ways.
TEST(Mismatch, IsAnErrorThatNamesBothCalls) {
  NEED_GPU();
  for (const size_t other : {2000, 200000}) {
    world::run({.nranks = 2}, [&](Rank& rank) {
      gpu::use(0);
      const gpu::Stream stream = gpu::create_stream();
      {
        Floats data(other);
        data.set(1, stream);
        (void)commAllReduce(data.on_gpu(), data.on_gpu(), rank.rank == 0 ? 1000 : other, commFloat,
                            commSum, rank.comm, of(stream));
        end_after_failure(rank, data, stream);
        const std::string text = commGetLastError(rank.comm);
        rank.expect(text.find("1000") != std::string::npos &&
                        text.find(std::to_string(other)) != std::string::npos,
                    "not both calls are named: " + text);
        COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      }
      gpu::destroy(stream);
    });
  }
}

// The root of a broadcast needs nobody, and is in its next call when the other finds out.
TEST(Mismatch, OfACallFromWhichOneRankHasGoneOnNamesBothCalls) {
  NEED_GPU();
  world::run({.nranks = 2}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      const size_t count = rank.rank == 0 ? 1000 : 2000;
      Floats data(count);
      data.set(1, stream);
      (void)commBroadcast(data.on_gpu(), data.on_gpu(), count, commFloat, 0, rank.comm, of(stream));
      if (rank.rank == 0) (void)gpu::sum(data, rank.comm, stream);
      end_after_failure(rank, data, stream);
      const std::string text = commGetLastError(rank.comm);
      rank.expect(text.find("broadcast(count 1000") != std::string::npos &&
                      text.find("broadcast(count 2000") != std::string::npos,
                  "not both calls are named: " + text);
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
    }
    gpu::destroy(stream);
  });
}

// One rank expects other sizes than the other sends, none or some among them.
TEST(Mismatch, OfTheBlocksOfAnAllToAllVIsAnError) {
  NEED_GPU();
  struct Sizes {
    size_t sent, expected;
  };
  for (const Sizes sizes : {Sizes{100, 101}, {0, 5}, {5, 0}, {100000, 5}, {5, 100000}}) {
    world::run({.nranks = 2}, [&](Rank& rank) {
      gpu::use(0);
      const gpu::Stream stream = gpu::create_stream();
      {
        Floats in(100000), out(100000);
        in.set(1, stream);
        const auto peer = static_cast<size_t>(1 - rank.rank);
        std::vector<size_t> send(2, 0), receive(2, 0);
        const std::vector<size_t> displs(2, 0);
        send[peer] = sizes.sent;
        receive[peer] = rank.rank == 1 ? sizes.expected : sizes.sent;
        rank.meet();  // to allocate waits for what runs on the GPU
        (void)commAlltoAllv(in.on_gpu(), send.data(), displs.data(), out.on_gpu(), receive.data(),
                            displs.data(), commFloat, rank.comm, of(stream));
        end_after_failure(rank, in, stream);
        const std::string text = commGetLastError(rank.comm);
        if (gpu::executor_is_forced())
          rank.expect(text.find("alltoallv") != std::string::npos &&
                          text.find(std::to_string(4 * sizes.sent)) != std::string::npos &&
                          text.find(std::to_string(4 * sizes.expected)) != std::string::npos,
                      "the blocks are not named: " + text);
        COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
      }
      gpu::destroy(stream);
    });
  }
}

// Not only where the host would meet: the kernels of the executor meet nobody on the host.
TEST(Mismatch, OfGpuMemoryWithHostMemoryIsNoticed) {
  NEED_GPU();
  if (!gpu::executor_is_forced()) GTEST_SKIP() << "where it is staged, GPU memory goes with host's";
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [&](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    {
      Floats data(1000);
      std::vector<float> host(1000, 1);
      data.set(1, stream);
      if (rank.rank == 0)
        (void)gpu::sum(data, rank.comm, stream);
      else
        (void)commAllReduce(host.data(), host.data(), host.size(), commFloat, commSum, rank.comm,
                            nullptr);
      end_after_failure(rank, data, stream);
      const std::string text = commGetLastError(rank.comm);
      rank.expect(text.find("GPU memory") != std::string::npos, "GPU memory is not named: " + text);
      COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
    }
    gpu::destroy(stream);
  });
}

// In good order, but without the call for which the others wait.
TEST(RankThatLeaves, IsNamedByThoseWhoWaitForIt) {
  NEED_GPU();
  for (const size_t count : {1000, 200000}) {
    world::run({.nranks = 3, .kind = Kind::kProcesses}, [&](Rank& rank) {
      gpu::use(0);
      const gpu::Stream stream = gpu::create_stream();
      {
        Floats data(count);
        data.set(1, stream);
        for (int i = 0; i < 3; ++i) COMM_OK(rank, gpu::sum(data, rank.comm, stream));
        gpu::synchronise(stream);
        if (rank.rank != 1) {
          (void)gpu::sum(data, rank.comm, stream);
          end_after_failure(rank, data, stream);
          const std::string text = commGetLastError(rank.comm);
          rank.expect(text.find("rank 1 left (commDestroy)") != std::string::npos,
                      "it is not named: " + text);
          COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
        } else {
          COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
        }
      }
      gpu::destroy(stream);
    });
  }
}

// An earlier kernel of the application has failed: the stream never comes to the operation.
TEST(BrokenGpu, IsNoticedByItsOwnRank) {
  NEED_DOUBLE();
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    Floats data(1000);
    data.set(1, stream);
    gpu::synchronise(stream);
    constexpr int kLaunchFailed = 719;
    // Once before, since the first call on an allocation may wait for it.
    COMM_OK(rank, gpu::sum(data, rank.comm, stream));
    gpu::synchronise(stream);
    gpu::control<void(void*)>("cuda_double_pause")(stream);
    COMM_OK(rank, gpu::sum(data, rank.comm, stream));
    rank.meet();  // a call that begins later would be refused
    if (rank.rank == 0) {
      gpu::control<void(int, int)>("cuda_double_break")(0, kLaunchFailed);
    } else {
      gpu::control<void(void*)>("cuda_double_resume")(stream);
    }
    commResult_t state = commSuccess;
    for (int i = 0; i < 60000 && state == commSuccess; ++i) {
      COMM_OK(rank, commGetAsyncError(rank.comm, &state));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const std::string text = commGetLastError(rank.comm);
    rank.expect(state == (rank.rank == 0 ? commUnhandledCudaError : commRemoteError) ||
                    state == commUnhandledCudaError,
                "the state is " + std::to_string(state) + ": " + text);
    rank.expect(text.find("rank 0") != std::string::npos &&
                    text.find("CUDA_ERROR_LAUNCH_FAILED") != std::string::npos,
                "the text does not tell what has failed where: " + text);
    (void)commAbort(std::exchange(rank.comm, nullptr));
    _exit(rank.failures.empty() ? 0 : 1);
  });
}

TEST(FailedCall, OfTheDriverIsNamed) {
  NEED_DOUBLE();
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    gpu::use(0);
    const gpu::Stream stream = gpu::create_stream();
    Floats data(1000);
    rank.meet();
    const bool executes = gpu::executor_is_forced();
    if (rank.rank == 0)
      gpu::control<void(const char*, int, int)>("cuda_double_fail")(
          executes ? "cuLaunchKernel" : "cuLaunchHostFunc", 1, 2);
    const commResult_t result = commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat,
                                              commSum, rank.comm, of(stream));
    if (rank.rank == 0) {
      rank.expect_error(
          result, commUnhandledCudaError,
          {executes ? "libcomm_execute_float32" : "cuLaunchHostFunc", "CUDA_ERROR_OUT_OF_MEMORY"},
          "commAllReduce", rank.comm);
    } else {
      end_after_failure(rank, data, stream);
    }
    (void)commAbort(std::exchange(rank.comm, nullptr));
    _exit(rank.failures.empty() ? 0 : 1);
  });
}

}  // namespace
