// Programs written for NCCL that use GPUs, on libnccl.so.2 alone: they know CUDA and nccl.h, and
// nothing of libcomm.
#include "tests/gpu/gpu.h"

#include <gtest/gtest.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using std::string;

#define NEED_GPUS(n) \
  if (gpu::count() < (n)) GTEST_SKIP() << "no GPU here: cuInit finds " << gpu::count()
#define EXPECT_OK(call) EXPECT_EQ((call), ncclSuccess) << ncclGetLastError(nullptr)
#define ASSERT_OK(call) ASSERT_EQ((call), ncclSuccess) << ncclGetLastError(nullptr)
#define EXPECT_ERROR(call, code, text)                                    \
  do {                                                                    \
    EXPECT_EQ(call, code);                                                \
    EXPECT_NE(string(ncclGetLastError(nullptr)).find(text), string::npos) \
        << ncclGetLastError(nullptr);                                     \
  } while (0)

cudaStream_t of(gpu::Stream stream) { return static_cast<cudaStream_t>(stream); }

void* current_context() {
  void* context = nullptr;
  (void)gpu::control<int(void**)>("cuCtxGetCurrent")(&context);
  return context;
}

int device_of(ncclComm_t comm) {
  int device = -7;
  EXPECT_OK(ncclCommCuDevice(comm, &device));
  return device;
}

// Numbers on the GPU that is current, and what they are set from and read into.
class Numbers {
 public:
  explicit Numbers(size_t count, bool by_nccl = false) : count_(count), by_nccl_(by_nccl) {
    if (by_nccl) {
      void* memory = nullptr;
      EXPECT_OK(ncclMemAlloc(&memory, count * sizeof(float)));
      device_ = static_cast<float*>(memory);
    } else {
      device_ = static_cast<float*>(gpu::allocate(count * sizeof(float)));
    }
    host_ = static_cast<float*>(gpu::allocate_pinned(count * sizeof(float)));
  }
  ~Numbers() {
    if (by_nccl_)
      EXPECT_OK(ncclMemFree(device_));
    else
      gpu::free(device_);
    gpu::free_pinned(host_);
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  float* data() const { return device_; }
  // In the stream's order; waits for it.
  template <typename Value>
  void set(gpu::Stream stream, Value value) {
    for (size_t i = 0; i < count_; ++i) host_[i] = value(i);
    gpu::copy(device_, host_, count_ * sizeof(float), stream);
    gpu::synchronise(stream);
  }
  // After what is in the stream, the first `count` are the wanted ones.
  template <typename Value>
  void expect(gpu::Stream stream, const char* what, size_t count, Value wanted) {
    gpu::copy(host_, device_, count_ * sizeof(float), stream);
    gpu::synchronise(stream);
    size_t wrong = 0;
    for (size_t i = 0; i < count; ++i) wrong += host_[i] == static_cast<float>(wanted(i)) ? 0 : 1;
    EXPECT_EQ(wrong, 0u) << what << ": of " << count << " numbers";
  }

 private:
  size_t count_;
  bool by_nccl_;
  float* device_ = nullptr;
  float* host_ = nullptr;
};

struct Rank {
  int rank, nranks;
  ncclComm_t comm;
};

// Ranks as threads, each with the GPU of its number, as far as there are as many.
void run_ranks(int nranks, const std::function<void(Rank&)>& body) {
  ncclUniqueId id;
  ASSERT_OK(ncclGetUniqueId(&id));
  std::vector<std::thread> threads;
  for (int r = 0; r < nranks; ++r) {
    threads.emplace_back([&, r] {
      gpu::use(r % gpu::count());
      Rank rank{r, nranks, nullptr};
      ASSERT_OK(ncclCommInitRank(&rank.comm, nranks, id, r));
      EXPECT_EQ(device_of(rank.comm), r % gpu::count());
      body(rank);
      EXPECT_OK(ncclCommDestroy(rank.comm));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

constexpr size_t kCount = 1000;

// Element i of rank r's block b.
float value(int r, size_t b, size_t i) {
  return static_cast<float>(1000 * r) + static_cast<float>(100 * b + i % 100);
}

void expect_every_collective(const Rank& rank, cudaStream_t stream, bool memory_by_nccl) {
  const int me = rank.rank;
  const auto n = static_cast<size_t>(rank.nranks);
  const ncclComm_t comm = rank.comm;
  Numbers in(n * kCount, memory_by_nccl), out(n * kCount, memory_by_nccl);
  in.set(stream, [&](size_t i) { return value(me, i / kCount, i % kCount); });
  const auto check = [&](const char* what, size_t blocks, const auto& wanted) {
    out.expect(stream, what, blocks * kCount,
               [&](size_t i) { return wanted(i / kCount, i % kCount); });
    out.set(stream, [](size_t) { return -1.0F; });
  };
  const auto sum = [&](size_t b, size_t i) {
    float all = 0;
    for (int r = 0; r < rank.nranks; ++r) all += value(r, b, i);
    return all;
  };
  const int last = rank.nranks - 1;

  EXPECT_OK(ncclAllReduce(in.data(), out.data(), n * kCount, ncclFloat, ncclSum, comm, stream));
  check("AllReduce", n, sum);
  EXPECT_OK(ncclReduceScatter(in.data(), out.data(), kCount, ncclFloat, ncclSum, comm, stream));
  check("ReduceScatter", 1, [&](size_t, size_t i) { return sum(static_cast<size_t>(me), i); });
  EXPECT_OK(ncclReduce(in.data(), out.data(), kCount, ncclFloat, ncclMax, 0, comm, stream));
  if (me == 0) check("Reduce", 1, [&](size_t, size_t i) { return value(last, 0, i); });
  EXPECT_OK(ncclAllGather(in.data(), out.data(), kCount, ncclFloat, comm, stream));
  check("AllGather", n, [](size_t b, size_t i) { return value(static_cast<int>(b), 0, i); });
  EXPECT_OK(ncclAlltoAll(in.data(), out.data(), kCount, ncclFloat, comm, stream));
  check("AlltoAll", n,
        [&](size_t b, size_t i) { return value(static_cast<int>(b), static_cast<size_t>(me), i); });
  EXPECT_OK(ncclBroadcast(in.data(), out.data(), kCount, ncclFloat, last, comm, stream));
  check("Broadcast", 1, [&](size_t, size_t i) { return value(last, 0, i); });
  out.set(stream, [&](size_t i) { return value(me, 0, i); });
  EXPECT_OK(ncclBcast(out.data(), kCount, ncclFloat, last, comm, stream));
  check("Bcast", 1, [&](size_t, size_t i) { return value(last, 0, i); });
  EXPECT_OK(ncclGather(in.data(), out.data(), kCount, ncclFloat, 0, comm, stream));
  if (me == 0)
    check("Gather", n, [](size_t b, size_t i) { return value(static_cast<int>(b), 0, i); });
  EXPECT_OK(ncclScatter(in.data(), out.data(), kCount, ncclFloat, last, comm, stream));
  check("Scatter", 1, [&](size_t, size_t i) { return value(last, static_cast<size_t>(me), i); });

  const int next = (me + 1) % rank.nranks, before = (me + last) % rank.nranks;
  EXPECT_OK(ncclGroupStart());
  EXPECT_OK(ncclSend(in.data(), kCount, ncclFloat, next, comm, stream));
  EXPECT_OK(ncclRecv(out.data(), kCount, ncclFloat, before, comm, stream));
  EXPECT_OK(ncclGroupEnd());
  check("Send and Recv", 1, [&](size_t, size_t i) { return value(before, 0, i); });
}

class OnStreams : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Nccl, OnStreams, testing::Values("Created", "Legacy", "PerThread"),
                         [](const auto& one) { return one.param; });

TEST_P(OnStreams, EveryCollectiveMovesWhatItShould) {
  NEED_GPUS(1);
  run_ranks(3, [](Rank& rank) {
    const string kind = GetParam();
    gpu::Stream stream = gpu::kDefaultStream;
    if (kind == "Created") stream = gpu::create_stream();
    if (kind == "PerThread") stream = gpu::kPerThreadStream;
    expect_every_collective(rank, of(stream), false);
    if (kind == "Created") gpu::destroy(stream);
  });
}

TEST(MemoryOfNccl, TakesPartInEveryCollective) {
  NEED_GPUS(1);
  run_ranks(2, [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    expect_every_collective(rank, of(stream), true);
    gpu::destroy(stream);
  });
}

TEST(MemoryOfNccl, IsOfTheGpuThatIsCurrent) {
  NEED_GPUS(1);
  gpu::use(0);
  void* memory = nullptr;
  ASSERT_OK(ncclMemAlloc(&memory, 5000));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % NCCL_WIN_REQUIRED_ALIGNMENT, 0u);
  constexpr int kMemoryType = 2, kDevice = 2;
  unsigned type = 0;
  const auto attribute = gpu::control<int(void*, int, unsigned long long)>("cuPointerGetAttribute");
  EXPECT_EQ(attribute(&type, kMemoryType, reinterpret_cast<uintptr_t>(memory)), 0);
  EXPECT_EQ(type, static_cast<unsigned>(kDevice));
  // Freed by a thread that uses no GPU, and once only.
  std::thread([&] { EXPECT_OK(ncclMemFree(memory)); }).join();
  EXPECT_ERROR(ncclMemFree(memory), ncclInvalidArgument, "not memory of commMemAlloc");
  // What the program has from elsewhere stays the program's.
  void* const other = gpu::allocate(5000);
  EXPECT_ERROR(ncclMemFree(other), ncclInvalidArgument, "not memory of commMemAlloc");
  gpu::free(other);
}

TEST(MemoryOfNccl, IsTheHostsInAThreadWithoutAGpu) {
  NEED_GPUS(1);
  std::thread([] {
    void* memory = nullptr;
    ASSERT_OK(ncclMemAlloc(&memory, 5000));
    EXPECT_EQ(static_cast<char*>(memory)[4999], 0);
    static_cast<char*>(memory)[4999] = 1;
    EXPECT_OK(ncclMemFree(memory));
  }).join();
}

TEST(MemoryOfNccl, CanBeRegisteredAndAWindow) {
  NEED_GPUS(1);
  run_ranks(2, [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    {
      Numbers data(kCount, true);
      constexpr size_t kBytes = kCount * sizeof(float);
      ncclWindow_t window = nullptr;
      void* handle = nullptr;
      EXPECT_ERROR(ncclCommWindowRegister(rank.comm, data.data() + 1, kBytes, &window, 0),
                   ncclInvalidArgument, "4096");
      EXPECT_OK(
          ncclCommWindowRegister(rank.comm, data.data(), kBytes, &window, NCCL_WIN_COLL_SYMMETRIC));
      EXPECT_OK(ncclCommRegister(rank.comm, data.data(), kBytes, &handle));
      data.set(stream, [&](size_t i) { return value(rank.rank, 0, i); });
      EXPECT_OK(ncclAllReduce(data.data(), data.data(), kCount, ncclFloat, ncclMin, rank.comm,
                              of(stream)));
      data.expect(stream, "AllReduce", kCount, [](size_t i) { return value(0, 0, i); });
      EXPECT_OK(ncclCommDeregister(rank.comm, handle));
      EXPECT_OK(ncclCommWindowDeregister(rank.comm, window));
    }
    gpu::destroy(stream);
  });
}

TEST(PreMulSum, ReadsItsScalarOnTheGpuInTheStreamsOrder) {
  NEED_GPUS(1);
  run_ranks(2, [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    {
      Numbers data(kCount), factor(1);
      ncclRedOp_t op{};
      EXPECT_OK(
          ncclRedOpCreatePreMulSum(&op, factor.data(), ncclFloat, ncclScalarDevice, rank.comm));
      factor.set(stream, [](size_t) { return 0.5F; });
      data.set(stream, [](size_t i) { return static_cast<float>(i); });
      EXPECT_OK(
          ncclAllReduce(data.data(), data.data(), kCount, ncclFloat, op, rank.comm, of(stream)));
      data.expect(stream, "PreMulSum", kCount, [](size_t i) { return i; });
      EXPECT_OK(ncclRedOpDestroy(op, rank.comm));
    }
    gpu::destroy(stream);
  });
}

TEST(Graph, OfACallIsLaunchedAgain) {
  NEED_GPUS(1);
  run_ranks(2, [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    {
      Numbers data(kCount);
      const gpu::Graph graph(stream, [&] {
        EXPECT_OK(ncclAllReduce(data.data(), data.data(), kCount, ncclFloat, ncclSum, rank.comm,
                                of(stream)));
      });
      for (int launch = 1; launch <= 3; ++launch) {
        data.set(stream, [&](size_t) { return static_cast<float>(launch); });
        graph.launch(stream);
        graph.launch(stream);
        data.expect(stream, "two launches", kCount, [&](size_t) { return 4 * launch; });
      }
    }
    gpu::destroy(stream);
  });
}

// One thread that drives all ranks, each on a GPU and a stream of its own.
class InitAll : public testing::Test {
 protected:
  static constexpr int kRanks = 3;
  void SetUp() override {
    NEED_GPUS(1);
    gpu::use(0);
  }
  void TearDown() override {
    for (size_t r = 0; r < streams_.size(); ++r) {
      use(r);
      data_[r].reset();
      gpu::destroy(streams_[r]);
    }
    for (const ncclComm_t comm : comms_) EXPECT_OK(ncclCommDestroy(comm));
  }
  static void use(size_t rank) { gpu::use(static_cast<int>(rank) % gpu::count()); }
  void start() {
    std::vector<int> devices(kRanks);
    for (int r = 0; r < kRanks; ++r) devices[static_cast<size_t>(r)] = r % gpu::count();
    comms_.resize(kRanks);
    ASSERT_OK(ncclCommInitAll(comms_.data(), kRanks, devices.data()));
    for (size_t r = 0; r < kRanks; ++r) {
      use(r);
      streams_.push_back(gpu::create_stream());
      data_.push_back(std::make_unique<Numbers>(kCount));
      data_[r]->set(streams_[r], [&](size_t i) { return value(static_cast<int>(r), 0, i); });
    }
  }
  // Each rank's part of a group.
  template <typename Call>
  void group(Call call) {
    ASSERT_OK(ncclGroupStart());
    for (size_t r = 0; r < kRanks; ++r) {
      use(r);
      EXPECT_OK(call(r, data_[r]->data(), comms_[r], of(streams_[r])));
    }
    ASSERT_OK(ncclGroupEnd());
  }
  template <typename Value>
  void expect(const char* what, Value wanted) {
    for (size_t r = 0; r < kRanks; ++r) {
      use(r);
      data_[r]->expect(streams_[r], what, kCount, [&](size_t i) { return wanted(r, i); });
    }
  }

  std::vector<ncclComm_t> comms_;
  std::vector<gpu::Stream> streams_;
  std::vector<std::unique_ptr<Numbers>> data_;
};

TEST_F(InitAll, OneThreadDrivesItsRanksInGroups) {
  start();
  group([](size_t, float* data, ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(data, data, kCount, ncclFloat, ncclMax, comm, stream);
  });
  expect("AllReduce", [](size_t, size_t i) { return value(2, 0, i); });
  group([](size_t r, float* data, ncclComm_t comm, cudaStream_t stream) {
    return r == 1   ? ncclRecv(data, kCount, ncclFloat, 0, comm, stream)
           : r == 0 ? ncclSend(data, kCount, ncclFloat, 1, comm, stream)
                    : ncclSuccess;
  });
  group([](size_t, float* data, ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(data, data, kCount, ncclFloat, ncclSum, comm, stream);
  });
  expect("AllReduce after messages", [](size_t, size_t i) { return 3 * value(2, 0, i); });
}

TEST_F(InitAll, GivesRanksTheGpusOfTheList) {
  NEED_GPUS(3);
  void* const before = current_context();
  const auto devices = [](const std::vector<int>& list, bool pass_list = true) {
    const int n = static_cast<int>(list.size());
    std::vector<ncclComm_t> comms(list.size());
    std::vector<int> found;
    EXPECT_OK(ncclCommInitAll(comms.data(), n, pass_list ? list.data() : nullptr));
    for (const ncclComm_t comm : comms) {
      found.push_back(device_of(comm));
      EXPECT_OK(ncclCommDestroy(comm));
    }
    return found;
  };
  using Devices = std::vector<int>;
  EXPECT_EQ(devices({2, 0, 1}), (Devices{2, 0, 1}));
  EXPECT_EQ(devices({1, 1, 0}), (Devices{1, 1, 0}));
  EXPECT_EQ(devices({0, 0}, false), (Devices{0, 1})) << "NULL: rank i has GPU i";
  EXPECT_EQ(devices({gpu::count() + 60, 2}), (Devices{-1, 2})) << "a number that is no GPU";
  EXPECT_EQ(current_context(), before);
}

TEST_F(InitAll, MayBeForbiddenToShareGpus) {
  NEED_GPUS(2);
  ASSERT_EQ(::setenv("NCCL_MULTI_RANK_GPU_ENABLE", "0", 1), 0);
  ncclComm_t comms[2] = {};
  const int same[] = {1, 1}, different[] = {1, 0};
  EXPECT_ERROR(ncclCommInitAll(comms, 2, same), ncclInvalidUsage, "COMM_MULTI_RANK_GPU");
  EXPECT_EQ(comms[0], nullptr);
  EXPECT_OK(ncclCommInitAll(comms, 2, different));
  for (const ncclComm_t comm : comms) EXPECT_OK(ncclCommDestroy(comm));
  ASSERT_EQ(::unsetenv("NCCL_MULTI_RANK_GPU_ENABLE"), 0);
}

TEST_F(InitAll, ReportsAGpuThatCannotBeUsed) {
  NEED_GPUS(2);
  if (!gpu::is_double()) GTEST_SKIP() << "needs a fault that only the double has";
  constexpr int kOutOfMemory = 2;
  gpu::control<void(const char*, int, int)>("cuda_double_fail")("cuDevicePrimaryCtxRetain", 2,
                                                                kOutOfMemory);
  ncclComm_t comms[2] = {};
  EXPECT_ERROR(ncclCommInitAll(comms, 2, nullptr), ncclUnhandledCudaError, "GPU 1");
  EXPECT_EQ(comms[0], nullptr);
}

// Communicators that are made later, or in another thread, belong to the GPU of the call.
TEST(CuDevice, IsTheGpuThatWasCurrentInTheCall) {
  NEED_GPUS(3);
  ncclUniqueId id;
  ASSERT_OK(ncclGetUniqueId(&id));
  ncclComm_t comms[2] = {};
  ASSERT_OK(ncclGroupStart());
  for (int r = 0; r < 2; ++r) {
    gpu::use(r + 1);
    ASSERT_OK(ncclCommInitRank(&comms[r], 2, id, r));
  }
  gpu::use(0);
  void* const before = current_context();
  ASSERT_OK(ncclGroupEnd());
  EXPECT_EQ(current_context(), before);
  EXPECT_EQ(device_of(comms[0]), 1);
  EXPECT_EQ(device_of(comms[1]), 2);
  for (const ncclComm_t comm : comms) EXPECT_OK(ncclCommDestroy(comm));

  ASSERT_OK(ncclGetUniqueId(&id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  gpu::use(2);
  ncclComm_t alone = nullptr;
  EXPECT_EQ(ncclCommInitRankConfig(&alone, 1, id, 0, &config), ncclInProgress);
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress) {
    ASSERT_OK(ncclCommGetAsyncError(alone, &state));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(device_of(alone), 2);
  EXPECT_OK(ncclCommDestroy(alone));
}

TEST(CuDevice, IsNoneInAThreadWithoutAGpu) {
  NEED_GPUS(1);
  std::thread([] {
    ncclUniqueId id;
    ASSERT_OK(ncclGetUniqueId(&id));
    ncclComm_t comm = nullptr;
    ASSERT_OK(ncclCommInitRank(&comm, 1, id, 0));
    EXPECT_EQ(device_of(comm), -1);
    EXPECT_OK(ncclCommDestroy(comm));
  }).join();
}

// The peer has not come: only the abort ends the wait of the stream.
TEST(Abort, InAGroupEndsWorkOnTheGpu) {
  NEED_GPUS(1);
  std::atomic<bool> here{false}, aborted{false};
  ncclUniqueId id;
  ASSERT_OK(ncclGetUniqueId(&id));
  const auto rank = [&](int me) {
    gpu::use(0);
    ncclComm_t comm = nullptr;
    ASSERT_OK(ncclCommInitRank(&comm, 2, id, me));
    const gpu::Stream stream = gpu::create_stream();
    {
      Numbers data(kCount);
      const auto sum = [&] {
        return ncclAllReduce(data.data(), data.data(), kCount, ncclFloat, ncclSum, comm,
                             of(stream));
      };
      const auto wait_for = [](const std::atomic<bool>& flag) {
        while (!flag) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      };
      if (me == 0) {
        wait_for(here);  // an abort would end its ncclCommInitRank
        EXPECT_OK(sum());
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_FALSE(gpu::is_idle(stream)) << "the sum ended without its peer";
        ASSERT_OK(ncclGroupStart());
        EXPECT_OK(sum());
        EXPECT_OK(ncclCommAbort(comm));
        EXPECT_OK(ncclGroupEnd());
        gpu::synchronise(stream);
        aborted = true;
      } else {
        here = true;
        wait_for(aborted);
        // The abort is noticed by the call or by the work that it has queued.
        const ncclResult_t begun = sum();
        EXPECT_TRUE(begun == ncclSuccess || begun == ncclRemoteError);
        gpu::synchronise(stream);
        ncclResult_t state = ncclSuccess;
        for (int i = 0; i < 60000 && state == ncclSuccess; ++i) {
          EXPECT_OK(ncclCommGetAsyncError(comm, &state));
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        EXPECT_EQ(state, ncclRemoteError) << ncclGetLastError(comm);
        EXPECT_OK(ncclCommAbort(comm));
      }
    }
    gpu::destroy(stream);
  };
  std::thread other(rank, 1);
  rank(0);
  other.join();
}

TEST(WrongMemory, IsRefusedWithItsName) {
  NEED_GPUS(1);
  gpu::use(0);
  ncclComm_t comms[2] = {};
  const int devices[] = {0, 0};
  ASSERT_OK(ncclCommInitAll(comms, 2, devices));
  const gpu::Stream stream = gpu::create_stream();
  {
    Numbers data(kCount);
    std::vector<float> host(kCount);
    const auto sum = [&](const void* in, void* out) {
      return ncclAllReduce(in, out, kCount, ncclFloat, ncclSum, comms[0], of(stream));
    };
    EXPECT_ERROR(sum(host.data(), data.data()), ncclInvalidArgument, "host memory");
    EXPECT_ERROR(sum(data.data(), host.data()), ncclInvalidArgument, "GPU memory");
    void* freed = gpu::allocate(kCount * sizeof(float));
    gpu::free(freed);
    EXPECT_ERROR(sum(freed, freed), ncclInvalidArgument, "freed");
    ASSERT_OK(ncclMemAlloc(&freed, kCount * sizeof(float)));
    ASSERT_OK(ncclMemFree(freed));
    EXPECT_ERROR(sum(freed, freed), ncclInvalidArgument, "freed");
  }
  gpu::destroy(stream);
  for (const ncclComm_t comm : comms) EXPECT_OK(ncclCommDestroy(comm));
}

}  // namespace
