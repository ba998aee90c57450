// Knobs of GPU memory, seen on the double of the CUDA driver.
#include "tests/gpu/gpu.h"

#include <gtest/gtest.h>

#include "tests/gpu/memory.h"
#include "tests/knobs/looking.h"

namespace knobs {
namespace {

TEST(GPU_STAGING, IsThePinnedMemoryOfACommunicator) {
  ASSERT_TRUE(gpu::is_double());
  for (const size_t kib : {size_t{256}, size_t{4096}}) {
    (void)look_at({{"COMM_GPU_STAGING", std::to_string(kib) + "K"}}, 2, [&](Rank& rank) {
      gpu::use(0);
      rank.expect(stats_of(rank).pinnedBytes == 0, "pinned memory before the first operation");
      gpu::Floats data(1000000);
      data.set(1, gpu::kPerThreadStream);
      COMM_OK(rank, commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat, commSum,
                                  rank.comm, static_cast<cudaStream_t>(gpu::kPerThreadStream)));
      data.take(gpu::kPerThreadStream);
      gpu::synchronise(gpu::kPerThreadStream);
      rank.expect(data.all(2), "a wrong sum");
      const size_t pinned = stats_of(rank).pinnedBytes;
      rank.expect(pinned >= kib << 10 && pinned < (kib << 10) + 4096,
                  "pinned bytes: " + std::to_string(pinned));
    });
  }
}

TEST(MULTI_RANK_GPU, ForbidsRanksOnOneGpu) {
  ASSERT_TRUE(gpu::is_double());
  for (const bool same : {false, true}) {
    Launch start;
    start.settings = [&](int rank) {
      gpu::use(same ? 0 : rank);
      return Environment{{"COMM_MULTI_RANK_GPU", "0"}};
    };
    start.init = [&](Rank& rank, commResult_t result) {
      if (!same) {
        rank.expect(result == commSuccess, "two GPUs are taken for one");
        return;
      }
      rank.expect_error(result, commInvalidUsage, {"ranks 0 and 1", "COMM_MULTI_RANK_GPU"},
                        "commInitFromLauncher");
    };
    launch(start, [](Rank&) {});
  }
}

// How many kernels a sum of two ranks launched, the second of which has this GPU.
uint64_t kernels_of(int second_gpu, const Environment& settings,
                    const char* kernel = "libcomm_late_reduce_float32", size_t count = 100000) {
  const auto launches = gpu::control<uint64_t(const char*)>("cuda_double_launches");
  const uint64_t before = launches(kernel);
  const auto use = [=](int rank) { gpu::use(rank == 1 ? second_gpu : 0); };
  world::run({.nranks = 2, .environment = settings, .begin = use}, [count](Rank& rank) {
    gpu::Floats data(count);
    data.set(1, gpu::kPerThreadStream);
    COMM_OK(rank, gpu::sum(data, rank.comm, gpu::kPerThreadStream));
    data.take(gpu::kPerThreadStream);
    gpu::synchronise(gpu::kPerThreadStream);
    rank.expect(data.all(2), "a wrong sum");
  });
  return launches(kernel) - before;
}

// How many kernels an all-gather of two ranks launched, whose buffers lie in windows; `config`: the
// policy of the communicator's configuration.
uint64_t kernels_of_windows(const Environment& settings, int config = COMM_CONFIG_UNDEF_INT) {
  const auto launches = gpu::control<uint64_t(const char*)>("cuda_double_launches");
  const uint64_t before = launches("libcomm_late_copy");
  const auto use = [](int) { gpu::use(0); };
  world::run({.nranks = 2, .environment = settings, .begin = use}, [config](Rank& rank) {
    commConfig_t options = COMM_CONFIG_INITIALIZER;
    options.CTAPolicy = config;
    comm_t comm = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &comm, &options));
    const gpu::Stream stream = gpu::create_stream();
    constexpr size_t kCount = 1000, kBytes = 1 << 20;
    void* data = nullptr;
    commWindow_t window = nullptr;
    COMM_OK(rank, commMemAlloc(&data, kBytes));
    COMM_OK(rank, commWindowRegister(comm, data, kBytes, &window, COMM_WIN_COLL_SYMMETRIC));
    auto* const in = static_cast<float*>(data);
    float* const out = in + kCount;
    const std::vector<float> mine(kCount, static_cast<float>(rank.rank + 1));
    gpu::copy(in, mine.data(), kCount * sizeof(float), stream);
    COMM_OK(rank, commAllGather(in, out, kCount, commFloat, comm, gpu::of(stream)));
    std::vector<float> all(2 * kCount);
    gpu::copy(all.data(), out, all.size() * sizeof(float), stream);
    gpu::synchronise(stream);
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i] != (i < kCount ? 1.0F : 2.0F)) return rank.expect(false, "a wrong element");
    COMM_OK(rank, commWindowDeregister(comm, window));
    COMM_OK(rank, commMemFree(data));
    gpu::destroy(stream);
    COMM_OK(rank, commDestroy(comm));
  });
  return launches("libcomm_late_copy") - before;
}

TEST(CTA_POLICY, ZeroMovesBytesOfWindowsWithoutKernels) {
  ASSERT_TRUE(gpu::is_double());
  EXPECT_GT(kernels_of_windows({}), 0u);
  for (const char* some : {"DEFAULT", "0", "EFFICIENCY", "1"})
    EXPECT_GT(kernels_of_windows({{"COMM_CTA_POLICY", some}}), 0u) << some;
  for (const char* none : {"ZERO", "2", "zero"})
    EXPECT_EQ(kernels_of_windows({{"COMM_CTA_POLICY", none}}), 0u) << none;
}

TEST(CTA_POLICY, IsForCommunicatorsWhoseConfigurationNamesNone) {
  ASSERT_TRUE(gpu::is_double());
  const Environment zero = {{"COMM_CTA_POLICY", "ZERO"}};
  EXPECT_GT(kernels_of_windows(zero, COMM_CTA_POLICY_DEFAULT), 0u);
  EXPECT_GT(kernels_of_windows(zero, COMM_CTA_POLICY_EFFICIENCY), 0u);
  EXPECT_EQ(kernels_of_windows({}, COMM_CTA_POLICY_ZERO), 0u);
}

TEST(P2P_DISABLE, KeepsRanksFromEachOthersGpuMemory) {
  ASSERT_TRUE(gpu::is_double());
  EXPECT_GT(kernels_of(0, {{"COMM_P2P_DISABLE", "0"}}), 0u);
  EXPECT_EQ(kernels_of(0, {{"COMM_P2P_DISABLE", "1"}}), 0u);
}

// How far apart the double's GPUs are is not known, which is the farthest.
TEST(P2P_LEVEL, IsHowFarApartGpusMayBe) {
  ASSERT_TRUE(gpu::is_double());
  EXPECT_GT(kernels_of(0, {{"COMM_P2P_LEVEL", "LOC"}}), 0u) << "the same GPU";
  EXPECT_EQ(kernels_of(1, {{"COMM_P2P_LEVEL", "LOC"}}), 0u);
  EXPECT_EQ(kernels_of(1, {{"COMM_P2P_LEVEL", "PHB"}}), 0u);
  EXPECT_GT(kernels_of(1, {{"COMM_P2P_LEVEL", "SYS"}}), 0u);
}

TEST(P2P_LEVEL, NvlIsForGpusThatTheDriverOrTheFileSaysHaveNvlink) {
  ASSERT_TRUE(gpu::is_double());
  const Environment nvlink = {{"COMM_P2P_LEVEL", "NVL"}};
  EXPECT_GT(kernels_of(0, nvlink), 0u) << "the same GPU";
  EXPECT_EQ(kernels_of(1, nvlink), 0u);
  const auto set = gpu::control<void(const char*, int)>("cuda_double_set");
  set("atomics", 1);
  EXPECT_GT(kernels_of(1, nvlink), 0u);
  EXPECT_GT(kernels_of(1, {{"COMM_P2P_LEVEL", "PIX"}}), 0u) << "farther than NVLink";
  EXPECT_EQ(kernels_of(1, {{"COMM_P2P_LEVEL", "LOC"}}), 0u);
  set("atomics", 0);
#if COMM_TEST_PUGIXML
  const std::string file = COMM_SOURCE_DIR "/tests/topology/data/nccl_nvlink.xml";
  EXPECT_GT(kernels_of(1, {{"COMM_P2P_LEVEL", "NVL"}, {"COMM_TOPO_FILE", file}}), 0u);
  EXPECT_EQ(kernels_of(2, {{"COMM_P2P_LEVEL", "NVL"}, {"COMM_TOPO_FILE", file}}), 0u);
#endif
}

TEST(P2P_LEVEL, NvlIsForGpusThatNvmlSaysHaveNvlink) {
  ASSERT_TRUE(gpu::is_double());
  Environment machine = {
      {"COMM_P2P_LEVEL", "NVL"},
      {"HWLOC_XMLFILE", COMM_SOURCE_DIR "/tests/topology/data/switches.xml"},
      {"HWLOC_THISSYSTEM", "1"},
      {"NVML_DOUBLE_GPUS",
       "0000:03:00.0=0000:07:00.0*4; 0000:07:00.0=0000:03:00.0*4; 0000:81:00.0=off*4"}};
  EXPECT_GT(kernels_of(1, machine), 0u);
  EXPECT_EQ(kernels_of(2, machine), 0u);
  const auto set = gpu::control<void(const char*, int)>("cuda_double_set");
  set("atomics", 1);
  EXPECT_EQ(kernels_of(2, machine), 0u) << "NVML tells, whatever the driver says";
  machine.emplace_back("NVML_DOUBLE_FAIL", "nvmlInit_v2=9");
  machine.emplace_back("HWLOC_OF_A_TEST", "another machine than the one that was read");
  EXPECT_GT(kernels_of(2, machine), 0u) << "NVML does not tell";
  set("atomics", 0);
}

TEST(TOPO_FILE, SaysHowFarApartGpusAre) {
  ASSERT_TRUE(gpu::is_double());
  // There the GPUs are below one host bridge, here they are nowhere.
  const std::string file = COMM_SOURCE_DIR "/tests/topology/data/switches.xml";
  const Environment far = {{"COMM_P2P_LEVEL", "PHB"}};
  const Environment near = {{"COMM_P2P_LEVEL", "PHB"}, {"COMM_TOPO_FILE", file}};
  EXPECT_EQ(kernels_of(1, far), 0u);
  EXPECT_GT(kernels_of(1, near), 0u);
}

// Whether each of two ranks that are processes launches so many kernels of the executor for a sum.
// `fail`: the rank whose driver fails a launch of the trial; -1: none.
bool processes_launch(uint64_t wanted, int second_gpu, const Environment& settings, size_t count,
                      int fail = -1, int launch = 0) {
  const auto begin = [=](int rank) {
    gpu::use(rank == 1 ? second_gpu : 0);
    if (rank == fail)
      gpu::control<void(const char*, int, int)>("cuda_double_fail")("cuLaunchKernel", launch, 719);
  };
  world::run(
      {.nranks = 2, .kind = world::Kind::kProcesses, .environment = settings, .begin = begin},
      [=](Rank& rank) {
        const auto launches = gpu::control<uint64_t(const char*)>("cuda_double_launches");
        const uint64_t before = launches("libcomm_execute_float32");
        gpu::Floats data(count);
        data.set(1, gpu::kPerThreadStream);
        COMM_OK(rank, gpu::sum(data, rank.comm, gpu::kPerThreadStream));
        data.take(gpu::kPerThreadStream);
        gpu::synchronise(gpu::kPerThreadStream);
        rank.expect(data.all(2), "a wrong sum");
        rank.expect(launches("libcomm_execute_float32") - before == wanted, "other kernels");
      });
  return !testing::Test::HasFailure();
}

TEST(GPU_EXECUTOR, LetsKernelsWaitForEachOther) {
  ASSERT_TRUE(gpu::is_double());
  const char* const kernel = "libcomm_execute_float32";
  for (const Environment& automatic : {Environment{}, Environment{{"COMM_GPU_EXECUTOR", "AUTO"}}}) {
    EXPECT_TRUE(processes_launch(1, 1, automatic, 1000)) << "small, on GPUs of their own";
    EXPECT_TRUE(processes_launch(0, 1, automatic, 100000)) << "large";
    EXPECT_TRUE(processes_launch(0, 0, automatic, 1000)) << "on the same GPU";
    EXPECT_EQ(kernels_of(1, automatic, kernel, 1000), 0u) << "ranks that are threads";
  }
  EXPECT_EQ(kernels_of(0, {{"COMM_GPU_EXECUTOR", "ALWAYS"}}, kernel, 100000), 2u);
  EXPECT_EQ(kernels_of(1, {{"COMM_GPU_EXECUTOR", "NEVER"}}, kernel, 1000), 0u);
}

// Elements that `from` sends to `to`: few, none, or so many that the block is a message.
size_t elements_of(int from, int to) {
  const size_t sizes[] = {1000, 0, 100000, 30000};
  return sizes[(from + 2 * to) % 4];
}

TEST(GPU_EXECUTOR, TakesTheSmallBlocksOfAnAllToAllV) {
  ASSERT_TRUE(gpu::is_double());
  for (const std::string choice : {"AUTO", "ALWAYS", "NEVER"}) {
    const Environment settings = {{"COMM_GPU_EXECUTOR", choice}};
    const uint64_t wanted = choice == "NEVER" ? 0 : 1;
    const bool by_messages = choice != "ALWAYS";
    const auto use = [](int rank) { gpu::use(rank); };
    const world::World processes{
        .nranks = 3, .kind = world::Kind::kProcesses, .environment = settings, .begin = use};
    world::run(processes, [=](Rank& rank) {
      const auto launches = gpu::control<uint64_t(const char*)>("cuda_double_launches");
      const gpu::Stream stream = gpu::create_stream();
      std::vector<size_t> send, receive, send_at{0}, receive_at{0};
      std::vector<float> given, expected;
      for (int peer = 0; peer < 3; ++peer) {
        send.push_back(elements_of(rank.rank, peer));
        receive.push_back(elements_of(peer, rank.rank));
        given.insert(given.end(), send.back(), static_cast<float>(10 * rank.rank + peer));
        expected.insert(expected.end(), receive.back(), static_cast<float>(10 * peer + rank.rank));
        send_at.push_back(given.size());
        receive_at.push_back(expected.size());
      }
      {
        gpu::Floats in(given.size()), out(expected.size());
        gpu::copy(in.on_gpu(), given.data(), given.size() * sizeof(float), stream);
        for (int round = 0; round < 3; ++round) {
          out.set(-1, stream);
          const uint64_t before = launches("libcomm_execute_float32");
          const uint64_t copies = launches("libcomm_late_copy");
          COMM_OK(rank, commAlltoAllv(in.on_gpu(), send.data(), send_at.data(), out.on_gpu(),
                                      receive.data(), receive_at.data(), commFloat, rank.comm,
                                      gpu::of(stream)));
          std::vector<float> got(expected.size());
          gpu::copy(got.data(), out.on_gpu(), got.size() * sizeof(float), stream);
          gpu::synchronise(stream);
          rank.expect(got == expected, "wrong blocks");
          rank.expect(launches("libcomm_execute_float32") - before == wanted, "other kernels");
          // The large block of the last rank is its own.
          rank.expect((launches("libcomm_late_copy") > copies) == (by_messages && rank.rank < 2),
                      "other messages");
        }
      }
      gpu::destroy(stream);
    });
  }
}

// A driver that does not run the kernels of the trial: the ranks go another way together.
TEST(GPU_EXECUTOR, IsTriedWhenACommunicatorIsMade) {
  ASSERT_TRUE(gpu::is_double());
  // The first launch of a rank is PeerMemory's proof, two are the trial.
  for (const int launch : {2, 3})
    for (const int rank : {0, 1})
      EXPECT_TRUE(processes_launch(0, 1, {}, 1000, rank, launch)) << launch << " of rank " << rank;
}

}  // namespace
}  // namespace knobs
