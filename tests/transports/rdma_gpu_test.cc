// GPU memory over RDMA: in place by DMA-BUF or nvidia-peermem, with flushes, or staged; on the
// doubles of libibverbs and of the CUDA driver. No processor can touch the GPU memory here, and
// what arrives in it is seen only after a read through the same network device.
#include "tests/base/temp_folder.h"
#include "tests/transports/cuda_double.h"
#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_stream.h"
#include "tests/transports/rdma_world.h"
#include "transports/cuda_memory.h"
#include "transports/rdma/gpu_direct.h"

namespace libcomm::test {
namespace {

class LentGpuMemory final : public UserMemory {
 public:
  void lend(std::byte* base, size_t bytes) { ranges_.push_back({++last_, base, bytes, false}); }
  bool find(const void* address, size_t bytes, Range* range) const override {
    const auto* begin = static_cast<const std::byte*>(address);
    for (const Range& each : ranges_) {
      if (begin < each.base || begin + bytes > each.base + each.bytes) continue;
      *range = each;
      return true;
    }
    return false;
  }
  bool is_live(uint64_t) const override { return true; }
  uint64_t ended() const override { return 0; }

 private:
  std::vector<Range> ranges_;
  uint64_t last_ = 0;
};

// GPUs at 03 (one switch with mlx5_0), 07 (same host bridge) and 81 (other socket).
constexpr int kNear = 0, kSameBridge = 1, kFar = 2;
constexpr size_t kBytes = 60000;

class RdmaGpu : public OnRdmaDouble {
 protected:
  void SetUp() override {
    OnRdmaDouble::SetUp();
    if (IsSkipped()) return;
    if (!cuda_.here())
      GTEST_SKIP() << "needs the double of libcuda: run by ctest, which sets LD_LIBRARY_PATH";
    cuda_.set("dmabuf", 1);
    cuda_.set("ordering", 0);
  }

  // Carries a message between GPU buffers of rank 0 and rank 1. What was copied by the driver says
  // which ends were staged.
  struct Carried {
    uint64_t copies = 0;
    bool sent_in_place = false, received_in_place = false;
  };
  Carried carry_gpu(const Settings& settings, int ordinal, size_t bytes = kBytes) {
    const WithVariable name("RDMA_DOUBLE_NAME", "mlx5_");
    const WithVariable late("RDMA_DOUBLE_LATE_GPU", "1");
    const WithVariable machine("HWLOC_XMLFILE", COMM_TEST_DATA "/switches.xml");
    const auto memory = std::make_shared<LentGpuMemory>();
    RdmaWorld world(settings, memory, CudaMemory::of_this_process());
    Link link = open_link(world.transport(0), world.transport(1), 0, 1, 0);
    EXPECT_TRUE(carry(link, SendWay::kSlot, RecvWay::kInto, numbered(1), pattern(10, 1)));
    std::byte* src = cuda_.alloc(bytes, ordinal);
    std::byte* dst = cuda_.alloc(bytes, ordinal);
    const size_t into = 512;  // not at the beginning of a page
    memory->lend(src + into, bytes - into);
    memory->lend(dst + into, bytes - into);
    const Bytes wanted = pattern(bytes - into, 7);
    cuda_.write(src + into, wanted.data(), wanted.size());
    const uint64_t copies = cuda_.copies();
    bool sent = false, done = false;
    EXPECT_TRUE(until([&] {
      const Status status = link.recv->receive_into(numbered(2), dst + into, wanted.size(), &done);
      EXPECT_TRUE(status.is_ok()) << status.to_string();
      const auto all = world.rdma(0).statistics();
      // A grant of the memory itself goes first.
      if (!sent && (all.front()->granted_bytes > 0 || wanted.size() < 4000))
        sent = try_send(*link.send, SendWay::kPost, numbered(2), src + into, wanted.size());
      completed(*link.send);
      return HasFailure() || done;
    }));
    Bytes got(wanted.size());
    cuda_.read(got.data(), dst + into, got.size());
    EXPECT_TRUE(got == wanted);
    Carried carried;
    carried.copies = cuda_.copies() - copies;
    carried.sent_in_place = world.rdma(0).statistics().front()->direct_segments > 0;
    carried.received_in_place = world.rdma(1).statistics().front()->direct_segments > 0;
    EXPECT_TRUE(until([&] { return completed(*link.send) == 2; }));
    link = {};
    cuda_.free(src);
    cuda_.free(dst);
    return carried;
  }

  const CudaDouble cuda_;
};

TEST_F(RdmaGpu, MemoryIsUsedInPlaceByDmabufAndFlushedBeforeItIsHandedOver) {
  const Carried carried = carry_gpu({}, kNear);
  EXPECT_EQ(carried.copies, 0u);
  EXPECT_TRUE(carried.sent_in_place);
  EXPECT_TRUE(carried.received_in_place);
}

TEST_F(RdmaGpu, EveryRailIsFlushed) {
  const WithVariable devices("RDMA_DOUBLE_DEVICES", "2");
  // The second is not in the machine's topology, and so far away.
  EXPECT_EQ(carry_gpu({{"NET_GDR_LEVEL", "SYS"}, {"IB_SPLIT_DATA_ON_QPS", "1"}}, kNear).copies, 0u);
  EXPECT_EQ(carry_gpu({}, kNear).copies, 2u) << "all rails must be near";
}

TEST_F(RdmaGpu, WithoutDmabufThePointerIsRegisteredWhereTheKernelCan) {
  for (const bool driver_lacks_it : {false, true}) {
    cuda_.set("dmabuf", driver_lacks_it ? 0 : 1);
    const WithVariable lacks("RDMA_DOUBLE_LACKS", driver_lacks_it ? "ece" : "dmabuf");
    {
      const WithVariable peermem("RDMA_DOUBLE_PEERMEM", "1");
      EXPECT_EQ(carry_gpu({}, kNear).copies, 0u);
    }
    testing::internal::CaptureStderr();
    EXPECT_EQ(carry_gpu({}, kNear).copies, 2u) << "staged at both ends";
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("is nvidia-peermem loaded?"), std::string::npos) << log;
  }
}

TEST_F(RdmaGpu, ATopologyFileOfNcclSaysWhatIsNear) {
  if (!COMM_TEST_PUGIXML) GTEST_SKIP() << "built without pugixml";
  EXPECT_EQ(carry_gpu({}, kFar).copies, 2u);
  const TempFolder folder;
  write_file(folder / "topo.xml",
             "<system version='1'><cpu numaid='0'><pci busid='ffff:ff:01.0' class='0x060400'>"
             "<pci busid='0000:81:00.0'/><pci busid='0000:04:00.0'/></pci></cpu></system>");
  EXPECT_EQ(carry_gpu({{"TOPO_FILE", folder / "topo.xml"}}, kFar).copies, 0u);
}

TEST_F(RdmaGpu, DistanceDecides) {
  const auto in_place = [&](const char* level, int ordinal) {
    return carry_gpu({{"NET_GDR_LEVEL", level}}, ordinal).copies == 0;
  };
  EXPECT_FALSE(in_place("LOC", kNear));
  EXPECT_TRUE(in_place("PIX", kNear));
  EXPECT_FALSE(in_place("PXB", kSameBridge));
  EXPECT_TRUE(in_place("PHB", kSameBridge));
  EXPECT_FALSE(in_place("PHB", kFar));
  EXPECT_TRUE(in_place("SYS", kFar));
}

TEST_F(RdmaGpu, SupportOverrulesDistance) {
  EXPECT_EQ(carry_gpu({{"IB_CUDA_SUPPORT", "1"}}, kFar).copies, 0u);
  EXPECT_EQ(carry_gpu({{"IB_CUDA_SUPPORT", "0"}}, kNear).copies, 2u);
}

TEST_F(RdmaGpu, ReadsMayBeForbiddenAlone) {
  const Carried carried = carry_gpu({{"NET_GDR_READ", "0"}}, kNear);
  EXPECT_EQ(carried.copies, 1u);
  EXPECT_FALSE(carried.sent_in_place);
  EXPECT_TRUE(carried.received_in_place);
}

TEST_F(RdmaGpu, SmallMessagesAreCopiedAtBothEnds) {
  EXPECT_EQ(carry_gpu({}, kNear, 2000).copies, 2u);
}

TEST_F(RdmaGpu, AGpuThatOrdersWritesNeedsNoFlush) {
  cuda_.set("ordering", 100);
  EXPECT_TRUE(CudaMemory::of_this_process()->place(nullptr).pci.empty());
  std::byte* memory = cuda_.alloc(4096, kFar);
  const DeviceMemory::Place place = CudaMemory::of_this_process()->place(memory + 100);
  EXPECT_TRUE(place.on_device);
  EXPECT_TRUE(place.writes_ordered);
  EXPECT_EQ(place.pci, "0000:81:00.0");
  cuda_.free(memory);
}

TEST_F(RdmaGpu, AProcessThatHasNotInitialisedCudaHasHostMemoryOnly) {
  std::byte* memory = cuda_.alloc(4096);
  cuda_.set("initialised", 0);
  EXPECT_FALSE(CudaMemory::of_this_process()->on_device(memory));
  cuda_.set("initialised", 1);
  EXPECT_TRUE(CudaMemory::of_this_process()->on_device(memory));
  int local = 0;
  EXPECT_FALSE(CudaMemory::of_this_process()->on_device(&local));
  cuda_.free(memory);
}

TEST(Gdr, TheLevelIsTheFarthestDistanceAllowed) {
  using rdma::gpu_allowed;
  EXPECT_TRUE(gpu_allowed({-1, PathClass::kPcieSwitch}, PathClass::kPcieSwitch));
  EXPECT_FALSE(gpu_allowed({-1, PathClass::kPcieSwitch}, PathClass::kRoot));
  EXPECT_FALSE(gpu_allowed({-1, PathClass::kSelf}, PathClass::kPcieSwitch));
  EXPECT_TRUE(gpu_allowed({1, PathClass::kSelf}, PathClass::kSystem));
  EXPECT_FALSE(gpu_allowed({0, PathClass::kNetwork}, PathClass::kPcieSwitch));
}

}  // namespace
}  // namespace libcomm::test
