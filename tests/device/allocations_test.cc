// GPU memory of commMemAlloc, on the double: where it begins, which context it is of, what is
// freed.
#include "src/device/allocations.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/doubles/child.h"
#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

using Allocations = Program;

void* allocated(const Driver& driver, size_t bytes) {
  auto made = alloc_on_current_gpu(driver, bytes);
  EXPECT_TRUE(made) << made.status().message();
  return made ? *made : nullptr;
}

void expect_freed(void* pointer, bool wanted) {
  const auto freed = free_allocation(pointer);
  ASSERT_TRUE(freed) << freed.status().message();
  EXPECT_EQ(*freed, wanted);
}

TEST_F(Allocations, AreOfTheGpuThatIsCurrent) {
  CUDA_OK(a.context_set(contexts[1]));
  void* const memory = allocated(d, kBytes);
  int ordinal = -1;
  CUDA_OK(d.pointer_get(&ordinal, kAttributeOrdinal, number_of(memory)));
  EXPECT_EQ(ordinal, 1);
  // Freed where nothing is current.
  std::thread([&] { expect_freed(memory, true); }).join();
  expect_freed(memory, false);
  CUDA_OK(a.context_set(nullptr));
  EXPECT_EQ(allocated(d, kBytes), nullptr);
}

TEST_F(Allocations, AreToldFromOtherMemory) {
  const CUdeviceptr other = device_memory();
  void* const memory = allocated(d, kBytes);
  expect_freed(pointer_of(other), false);
  expect_freed(static_cast<char*>(memory) + 1, false);
  expect_freed(memory, true);
  CUDA_OK(d.memory_free(other));
}

// A GPU places small allocations more closely than the double does.
TEST_F(Allocations, BeginAtAPageWhereverTheDriverPlacesThem) {
  static const Driver& real = d;
  Driver close = d;
  close.memory_alloc = [](CUdeviceptr* out, size_t bytes) {
    const CUresult result = real.memory_alloc(out, bytes + 512);
    *out += 512;
    return result;
  };
  close.memory_free = [](CUdeviceptr base) { return real.memory_free(base - 512); };
  cuda_double_set("chunks", 0);
  void* const memory = allocated(close, kBytes);
  cuda_double_set("chunks", 1);
  EXPECT_EQ(number_of(memory) % kAllocationAlignment, 0u);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CUDA_OK(d.address_range(&base, &bytes, number_of(memory)));
  EXPECT_LE(number_of(memory) + kBytes, base + bytes) << "the end is not in the allocation";
  expect_freed(memory, true);
}

TEST_F(Allocations, AreChunksThatCanBeExportedAndThatOtherGpusReach) {
  void* const memory = allocated(d, kBytes);
  CUmemHandle chunk = 0;
  CUDA_OK(d.chunk_retain(&chunk, memory));
  CUDA_OK(d.chunk_release(chunk));
  uint64_t kinds = 0;
  CUDA_OK(d.pointer_get(&kinds, kAttributeHandleTypes, number_of(memory)));
  EXPECT_EQ(kinds, uint64_t{kDescriptorHandle});
  for (const int gpu : {0, 1}) {
    const CUmemLocation there{kOnDevice, gpu};
    unsigned long long flags = 0;
    CUDA_OK(d.chunk_allowed(&flags, &there, number_of(memory)));
    EXPECT_EQ(flags, static_cast<unsigned long long>(kReadWrite)) << gpu;
  }
  expect_freed(memory, true);
  EXPECT_EQ(cuda_double_count("chunk_bytes"), 0u);
}

// What the trial finds out is remembered: each case has a process of its own.
TEST_F(Allocations, HaveFabricHandlesWhereATrialOfThemWorks) {
  struct Case {
    int fabric;
    const char* failing;  // once, in the trial
    uint64_t types;
  };
  struct Seen {
    uint64_t types[2], imports[2], left;
  };
  constexpr uint64_t kBoth = kDescriptorHandle | kFabricHandle;
  for (const Case& each :
       {Case{1, "", kBoth}, Case{0, "", kDescriptorHandle}, Case{2, "", kDescriptorHandle},
        Case{3, "", kDescriptorHandle}, Case{1, "cuMemExportToShareableHandle", kDescriptorHandle},
        Case{1, "cuMemImportFromShareableHandle", kDescriptorHandle}}) {
    const libcomm::test::Child child([&](int socket) {
      Program::SetUp();
      cuda_double_set("fabric", each.fabric);
      if (each.failing[0] != 0) cuda_double_fail(each.failing, 1, kNotPermitted);
      Seen seen{};
      for (const int i : {0, 1}) {
        void* const memory = allocated(d, kBytes);
        CUDA_OK(d.pointer_get(&seen.types[i], kAttributeHandleTypes, number_of(memory)));
        seen.imports[i] = cuda_double_count("fabric_imports");
        expect_freed(memory, true);
      }
      seen.left = cuda_double_count("chunk_bytes");
      libcomm::test::give(socket, seen);
    });
    const auto seen = libcomm::test::take<Seen>(child.socket());
    const std::string what = std::to_string(each.fabric) + " " + each.failing;
    EXPECT_EQ(seen.types[0], each.types) << what;
    EXPECT_EQ(seen.types[1], each.types) << what;
    EXPECT_EQ(seen.imports[0], each.types == kBoth ? 1u : 0u) << what;
    EXPECT_EQ(seen.imports[1], seen.imports[0]) << what << ": tried again";
    EXPECT_EQ(seen.left, 0u) << what;
  }
}

// Such as of a GPU whose memory is full but for less than what the fabric's chunks take.
TEST_F(Allocations, HaveDescriptorsAloneWhereOthersCannotBeHad) {
  const libcomm::test::Child child([&](int socket) {
    Program::SetUp();
    cuda_double_set("fabric", 1);
    expect_freed(allocated(d, kBytes), true);
    cuda_double_fail("cuMemCreate", 1, kOutOfMemory);
    void* const memory = allocated(d, kBytes);
    uint64_t types = 0;
    CUDA_OK(d.pointer_get(&types, kAttributeHandleTypes, number_of(memory)));
    libcomm::test::give(socket, types);
  });
  EXPECT_EQ(libcomm::test::take<uint64_t>(child.socket()), uint64_t{kDescriptorHandle});
}

// A driver that says it has chunks, and then has none (as in some containers).
TEST_F(Allocations, AreOthersWhereChunksCannotBeHad) {
  for (const char* call : {"cuMemCreate", "cuMemAddressReserve", "cuMemMap", "cuMemSetAccess"}) {
    cuda_double_fail(call, 1, kNotSupported);
    void* const memory = allocated(d, kBytes);
    EXPECT_EQ(cuda_double_count("chunk_bytes"), 0u) << call;
    EXPECT_EQ(cuda_double_count("device_bytes"), kBytes) << call;
    expect_freed(memory, true);
  }
}

TEST_F(Allocations, ThatCannotBeHadAreFailuresOfCuda) {
  cuda_double_set("memory_kib", 1);
  const auto made = alloc_on_current_gpu(d, kBytes);
  cuda_double_set("memory_kib", -1);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.status().code(), Code::kUnhandledCuda);
  EXPECT_EQ(made.status().message().find("commMemAlloc of 6000 bytes on GPU 0: CUDA_ERROR_OUT_OF"),
            0u)
      << made.status().message();
}

TEST_F(Allocations, CanBeMadeAndFreedWhileAStreamIsCaptured) {
  const CUstream captured = stream();
  CUDA_OK(a.begin_capture(captured, kCaptureGlobal));
  expect_freed(allocated(d, kBytes), true);
  CUgraph graph = nullptr;
  CUDA_OK(a.end_capture(captured, &graph));
  CUDA_OK(a.graph_destroy(graph));
  CUDA_OK(d.stream_destroy(captured));
}

}  // namespace
}  // namespace libcomm::cuda::test
