// Knobs of the RDMA transport, on the double of libibverbs that ctest names in LD_LIBRARY_PATH.
// What queue pairs do is what the log says of them, which is what the device answered when asked.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tests/gpu/gpu.h"
#include "tests/knobs/looking.h"
#include "tests/transports/cuda_double.h"

namespace knobs {
namespace {

// Rank threads on one host without shared memory, with one device unless the settings say more.
Look over_rdma(const Environment& settings, size_t count = 1000) {
  Environment all = {{"COMM_SHM_DISABLE", "1"}, {"RDMA_DOUBLE_DEVICES", "1"}};
  all.insert(all.end(), settings.begin(), settings.end());
  return look(all, count);
}

bool used_rdma(const Look& seen) { return contains(seen.log, "opened: rdma"); }

class OnTheDouble : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("LD_LIBRARY_PATH");
    if (path == nullptr || !contains(path, "doubles/ibverbs"))
      GTEST_SKIP() << "needs the double of libibverbs: run by ctest, in a build with verbs headers";
  }
};

#define ON_THE_DOUBLE(name) \
  class name : public OnTheDouble {}

ON_THE_DOUBLE(IB_DISABLE);
TEST_F(IB_DISABLE, LeavesSockets) {
  EXPECT_TRUE(used_rdma(over_rdma({})));
  const Look disabled = over_rdma({{"COMM_IB_DISABLE", "1"}});
  EXPECT_FALSE(used_rdma(disabled));
  EXPECT_TRUE(contains(disabled.log, "opened: tcp")) << disabled.log;
}

TEST_F(IB_DISABLE, IsNotNeededWherePortsDoNotReachEachOther) {
  // Ports of two fabrics: each works, but nothing comes through.
  const Folder folder;
  Launch start;
  start.settings = [&](int rank) {
    return Environment{{"COMM_SHM_DISABLE", "1"},
                       {"COMM_DEBUG", "INFO"},
                       {"COMM_DEBUG_FILE", folder / ("log" + std::to_string(rank))},
                       {"COMM_IB_TIMEOUT", "8"},
                       {"COMM_IB_RETRY_CNT", "1"},
                       {"RDMA_DOUBLE_DEVICES", "1"},
                       {"RDMA_DOUBLE_FABRIC", folder / std::to_string(rank)}};
  };
  for (const char* name : {"0", "1"}) std::filesystem::create_directory(folder / name);
  launch(start, [](Rank& rank) {
    std::vector<float> data(1000, 1.0F);
    sum(rank, data);
    rank.expect(data[0] == 2, "a wrong sum");
  });
  for (const char* log : {"log0", "log1"}) {
    const std::string text = read_file(folder / log);
    EXPECT_TRUE(contains(text, "RDMA is not used, since its ports do not reach each other"))
        << text;
    EXPECT_TRUE(contains(text, "opened: tcp")) << text;
  }
}

ON_THE_DOUBLE(IB_HCA);
TEST_F(IB_HCA, ChoosesDevices) {
  const Environment three = {{"RDMA_DOUBLE_DEVICES", "3"}};
  const auto with = [&](const char* hca) {
    Environment settings = three;
    settings.emplace_back("COMM_IB_HCA", hca);
    return over_rdma(settings);
  };
  const Look all = over_rdma(three);
  EXPECT_TRUE(contains(all.log, "RDMA at rank 0: double0:1 ")) << all.log;
  EXPECT_TRUE(contains(all.log, ", double2:1 ")) << all.log;
  const Look one = with("=double1");
  EXPECT_TRUE(contains(one.log, "RDMA at rank 0: double1:1 ")) << one.log;
  EXPECT_FALSE(contains(one.log, "double2:1")) << one.log;
  EXPECT_FALSE(contains(with("^double0").log, "double0:1"));
  EXPECT_TRUE(contains(with("double2:1").log, "RDMA at rank 0: double2:1 "));
}

TEST_F(IB_HCA, SaysWhatThereIsWhenItMatchesNothing) {
  const Look seen = over_rdma({{"COMM_IB_HCA", "mlx5"}});
  EXPECT_TRUE(contains(seen.log, "COMM_IB_HCA=mlx5: it matches none of: double0:1")) << seen.log;
  EXPECT_TRUE(contains(seen.log, "opened: tcp")) << seen.log;
}

ON_THE_DOUBLE(IB_GID_INDEX);
TEST_F(IB_GID_INDEX, ChoosesTheAddress) {
  EXPECT_TRUE(contains(over_rdma({}).log, "RoCE v2 10.77.1.1"));
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_GID_INDEX", "1"}}).log, "RoCE v2 fe80::"));
  const Look none = over_rdma({{"COMM_IB_GID_INDEX", "77"}});
  EXPECT_TRUE(contains(none.log, "COMM_IB_GID_INDEX=77, but this port has no GID there"))
      << none.log;
  EXPECT_FALSE(used_rdma(none));
}

ON_THE_DOUBLE(IB_ROCE_VERSION_NUM);
TEST_F(IB_ROCE_VERSION_NUM, ChoosesTheVersion) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_ROCE_VERSION_NUM", "1"}}).log, "RoCE v1 10.77.1.1"));
}

ON_THE_DOUBLE(IB_ADDR_FAMILY);
TEST_F(IB_ADDR_FAMILY, ChoosesTheFamily) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_ADDR_FAMILY", "AF_INET6"}}).log, "RoCE v2 fe80::"));
}

ON_THE_DOUBLE(IB_ADDR_RANGE);
TEST_F(IB_ADDR_RANGE, ChoosesTheNetwork) {
  const Environment two = {{"RDMA_DOUBLE_GIDS", "v2:10.1.0.5,v2:10.2.0.5"}};
  const auto in = [&](const char* range) {
    Environment settings = two;
    settings.emplace_back("COMM_IB_ADDR_RANGE", range);
    return over_rdma(settings);
  };
  EXPECT_TRUE(contains(in("10.2.0.0/16").log, "RoCE v2 10.2.0.5"));
  EXPECT_TRUE(contains(in("10.1.0.0/16").log, "RoCE v2 10.1.0.5"));
  const Look none = in("10.3.0.0/16");
  EXPECT_FALSE(used_rdma(none));
  EXPECT_TRUE(contains(none.log, "COMM_IB_ADDR_RANGE")) << none.log;
}

ON_THE_DOUBLE(IB_TIMEOUT);
TEST_F(IB_TIMEOUT, IsTheQueuePairs) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_TIMEOUT", "15"}}).log, "timeout 15, retries 7"));
}

ON_THE_DOUBLE(IB_RETRY_CNT);
TEST_F(IB_RETRY_CNT, IsTheQueuePairs) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_RETRY_CNT", "3"}}).log, "timeout 20, retries 3"));
}

ON_THE_DOUBLE(IB_SL);
TEST_F(IB_SL, IsTheQueuePairs) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_IB_SL", "5"}}).log, "service level 5"));
}

ON_THE_DOUBLE(IB_TC);
TEST_F(IB_TC, IsThatOfDataAndGrants) {
  const Look seen = over_rdma({{"COMM_IB_TC", "104"}});
  EXPECT_EQ(count(seen.log, "traffic class 104"), 2 * count(seen.log, "grants: MTU")) << seen.log;
}

ON_THE_DOUBLE(IB_FIFO_TC);
TEST_F(IB_FIFO_TC, IsThatOfGrantsAlone) {
  const Look seen = over_rdma({{"COMM_IB_TC", "104"}, {"COMM_IB_FIFO_TC", "192"}});
  EXPECT_GT(count(seen.log, "traffic class 104"), 0) << seen.log;
  EXPECT_EQ(count(seen.log, "traffic class 192"), count(seen.log, "grants: MTU")) << seen.log;
}

ON_THE_DOUBLE(IB_PKEY);
TEST_F(IB_PKEY, MustBeAnIndexOfThePort) {
  const Look seen = over_rdma({{"COMM_IB_PKEY", "7"}});
  EXPECT_TRUE(contains(seen.log, "COMM_IB_PKEY=7, but the port has 1 partition keys")) << seen.log;
  EXPECT_FALSE(used_rdma(seen));
}

ON_THE_DOUBLE(IB_QPS_PER_CONNECTION);
TEST_F(IB_QPS_PER_CONNECTION, MultipliesTheDataQueuePairs) {
  EXPECT_TRUE(contains(over_rdma({}).log, ": 1 data queue pairs"));
  EXPECT_TRUE(
      contains(over_rdma({{"COMM_IB_QPS_PER_CONNECTION", "4"}}).log, ": 4 data queue pairs"));
  // On each device.
  EXPECT_TRUE(
      contains(over_rdma({{"COMM_IB_QPS_PER_CONNECTION", "3"}, {"RDMA_DOUBLE_DEVICES", "2"}}).log,
               ": 6 data queue pairs"));
}

ON_THE_DOUBLE(IB_SPLIT_DATA_ON_QPS);
TEST_F(IB_SPLIT_DATA_ON_QPS, CutsOneSegmentOverAllQueuePairs) {
  // One segment of 64 KiB from rank 0 to rank 1: the log names the queue pairs that carried it.
  const auto carried_by = [](const char* split) {
    return look_at({{"COMM_SHM_DISABLE", "1"},
                    {"RDMA_DOUBLE_DEVICES", "1"},
                    {"COMM_IB_QPS_PER_CONNECTION", "4"},
                    {"COMM_IB_SPLIT_DATA_ON_QPS", split}},
                   2,
                   [](Rank& rank) {
                     std::vector<float> data(16384, 1.0F);
                     COMM_OK(rank, rank.rank == 0 ? commSend(data.data(), data.size(), commFloat32,
                                                             1, rank.comm, nullptr)
                                                  : commRecv(data.data(), data.size(), commFloat32,
                                                             0, rank.comm, nullptr));
                   })
        .log;
  };
  EXPECT_TRUE(contains(carried_by("1"), "carried by 4 of its 4 data queue pairs"));
  EXPECT_FALSE(contains(carried_by("0"), "carried by 4 of its 4 data queue pairs"));
}

ON_THE_DOUBLE(IB_PCI_RELAXED_ORDERING);
TEST_F(IB_PCI_RELAXED_ORDERING, IsAskedForOrNot) {
  for (const char* value : {"1", "2"})
    EXPECT_TRUE(contains(over_rdma({{"COMM_IB_PCI_RELAXED_ORDERING", value}}).log,
                         "data in relaxed order"));
  const Look strict = over_rdma({{"COMM_IB_PCI_RELAXED_ORDERING", "0"}});
  EXPECT_TRUE(used_rdma(strict));
  EXPECT_FALSE(contains(strict.log, "data in relaxed order"));
}

ON_THE_DOUBLE(IB_ECE_ENABLE);
TEST_F(IB_ECE_ENABLE, AgreesOnOptionsOrNot) {
  EXPECT_TRUE(contains(over_rdma({}).log, "ECE agreed"));
  EXPECT_FALSE(contains(over_rdma({{"COMM_IB_ECE_ENABLE", "0"}}).log, "ECE agreed"));
}

ON_THE_DOUBLE(RDMA_WINDOW);
TEST_F(RDMA_WINDOW, IsSlotsAndTheirSize) {
  EXPECT_TRUE(contains(over_rdma({{"COMM_RDMA_WINDOW", "2x8K"}}).log, "segments of 8192 bytes"));
  EXPECT_TRUE(contains(over_rdma({{"COMM_RDMA_WINDOW", "2x512K"}}).log, "segments of 524288"));
}

// How many large segments of an all-reduce of 1 MiB of plain memory went out from where it was.
int sent_in_place(const Environment& settings) {
  const Look seen = over_rdma(settings, size_t{256} << 10);
  EXPECT_TRUE(used_rdma(seen));
  int most = 0;
  for (size_t at = seen.log.find(" segments, "); at != std::string::npos;
       at = seen.log.find(" segments, ", at + 1))
    most = std::max(most, std::atoi(seen.log.c_str() + at + std::strlen(" segments, ")));
  return most;
}

ON_THE_DOUBLE(RDMA_PIN_FROM);
TEST_F(RDMA_PIN_FROM, IsTheLeastBufferThatIsUsedInPlace) {
  EXPECT_GT(sent_in_place({}), 0);
  EXPECT_GT(sent_in_place({{"COMM_RDMA_PIN_FROM", "1M"}}), 0);
  EXPECT_EQ(sent_in_place({{"COMM_RDMA_PIN_FROM", "1048577"}}), 0);
}

ON_THE_DOUBLE(RDMA_PIN_LIMIT);
TEST_F(RDMA_PIN_LIMIT, BoundsWhatIsUsedInPlace) {
  EXPECT_GT(sent_in_place({{"COMM_RDMA_PIN_LIMIT", "1M"}}), 0);
  EXPECT_EQ(sent_in_place({{"COMM_RDMA_PIN_LIMIT", "1048575"}}), 0);
  EXPECT_EQ(sent_in_place({{"COMM_RDMA_PIN_LIMIT", "0"}}), 0);
}

TEST_F(RDMA_WINDOW, RefusesNonsenseOnAllRanks) {
  for (const char* window : {"8", "0x8K", "8x1", "x", "65x8K"}) {
    Launch start;
    start.settings = [&](int) {
      return Environment{{"COMM_SHM_DISABLE", "1"}, {"COMM_RDMA_WINDOW", window}};
    };
    start.init = [](Rank& rank, commResult_t result) {
      rank.expect_error(result, commInvalidArgument, {"COMM_RDMA_WINDOW"}, "commInitFromLauncher");
    };
    launch(start, [](Rank&) {});
  }
}

// How often the driver copied when a message went from GPU memory to GPU memory, and the log.
struct GpuLook {
  uint64_t copies = 0;
  std::string log;
};
GpuLook gpu_message(const Environment& settings) {
  const libcomm::test::CudaDouble cuda;
  Environment all = {{"COMM_SHM_DISABLE", "1"},
                     {"RDMA_DOUBLE_DEVICES", "1"},
                     {"RDMA_DOUBLE_NAME", "mlx5_"},
                     {"RDMA_DOUBLE_LATE_GPU", "1"},
                     {"HWLOC_XMLFILE", COMM_SOURCE_DIR "/tests/topology/data/switches.xml"}};
  all.insert(all.end(), settings.begin(), settings.end());
  const uint64_t before = cuda.copies();
  const size_t bytes = size_t{2} << 20;
  GpuLook seen;
  seen.log = look_at(all, 2, [&](Rank& rank) {
               gpu::use(0);
               const gpu::Stream stream = gpu::create_stream();
               std::byte* memory = cuda.alloc(bytes);
               const std::vector<std::byte> mine(bytes, std::byte{7});
               void* handle = nullptr;
               COMM_OK(rank, commRegister(rank.comm, memory, bytes, &handle));
               if (rank.rank == 0) {
                 cuda.write(memory, mine.data(), bytes);
                 COMM_OK(rank, commSend(memory, bytes, commInt8, 1, rank.comm,
                                        static_cast<cudaStream_t>(stream)));
                 gpu::synchronise(stream);
               } else {
                 COMM_OK(rank, commRecv(memory, bytes, commInt8, 0, rank.comm,
                                        static_cast<cudaStream_t>(stream)));
                 gpu::synchronise(stream);
                 std::vector<std::byte> got(bytes);
                 cuda.read(got.data(), memory, bytes);
                 rank.expect(got == mine, "other bytes came");
               }
               COMM_OK(rank, commDeregister(rank.comm, handle));
               cuda.free(memory);
               gpu::destroy(stream);
             }).log;
  seen.copies = cuda.copies() - before;
  return seen;
}

class OnBothDoubles : public OnTheDouble {
 protected:
  void SetUp() override {
    OnTheDouble::SetUp();
    if (!IsSkipped() && !libcomm::test::CudaDouble().here())
      GTEST_SKIP() << "needs the double of libcuda: run by ctest";
  }
};

class NET_GDR_LEVEL : public OnBothDoubles {};
TEST_F(NET_GDR_LEVEL, DecidesByDistance) {
  const GpuLook near = gpu_message({});
  EXPECT_TRUE(contains(near.log, "memory of GPU 0000:03:00.0 is used in place by mlx5_0:1"))
      << near.log;
  const GpuLook never = gpu_message({{"COMM_NET_GDR_LEVEL", "LOC"}});
  EXPECT_TRUE(contains(never.log, "which COMM_NET_GDR_LEVEL=LOC does not allow")) << never.log;
  EXPECT_GT(never.copies, near.copies);
}

class NET_GDR_READ : public OnBothDoubles {};
TEST_F(NET_GDR_READ, LetsDevicesReadOrNot) {
  EXPECT_GT(gpu_message({{"COMM_NET_GDR_READ", "0"}}).copies, gpu_message({}).copies);
}

class IB_CUDA_SUPPORT : public OnBothDoubles {};
TEST_F(IB_CUDA_SUPPORT, OverrulesTheDistance) {
  EXPECT_TRUE(contains(gpu_message({{"COMM_IB_CUDA_SUPPORT", "0"}}).log, "COMM_IB_CUDA_SUPPORT=0"));
  EXPECT_TRUE(
      contains(gpu_message({{"COMM_IB_CUDA_SUPPORT", "1"}, {"COMM_NET_GDR_LEVEL", "LOC"}}).log,
               "is used in place"));
}

}  // namespace
}  // namespace knobs
