// Memory of cuMemCreate: addresses, chunks, who may touch them, and how long they are there.
#include <unistd.h>

#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

class Virtual : public Program {
 protected:
  static constexpr size_t kChunk = size_t{2} << 20;

  static CUmemAllocationProp wanted(int gpu = 0, bool shared = true) {
    CUmemAllocationProp all{};
    all.type = kPinnedChunk;
    all.handle_types = shared ? kDescriptorHandle : 0;
    all.location = {kOnDevice, gpu};
    return all;
  }
  CUmemHandle chunk(int gpu = 0, bool shared = true) {
    const CUmemAllocationProp all = wanted(gpu, shared);
    CUmemHandle made = 0;
    CUDA_OK(d.chunk_create(&made, kChunk, &all, 0));
    return made;
  }
  CUdeviceptr addresses(size_t chunks) {
    CUdeviceptr made = 0;
    CUDA_OK(d.address_reserve(&made, chunks * kChunk, 0, 0, 0));
    return made;
  }
  CUresult allow(CUdeviceptr at, int gpu, size_t bytes = kChunk) {
    const CUmemAccessDesc who{{kOnDevice, gpu}, kReadWrite};
    return d.chunk_allow(at, bytes, &who, 1);
  }
  void TearDown() override {
    EXPECT_EQ(cuda_double_count("chunk_bytes"), 0u);
    Program::TearDown();
  }
};

TEST_F(Virtual, ChunksSideBySideAreOneRange) {
  const CUdeviceptr at = addresses(3);
  const CUmemHandle first = chunk(), second = chunk();
  CUDA_OK(d.chunk_map(at, kChunk, 0, first, 0));
  CUDA_OK(d.chunk_map(at + kChunk, kChunk, 0, second, 0));
  CUDA_GIVES(d.chunk_map(at, kChunk, 0, second, 0), kInvalidValue) << "it is mapped";
  CUDA_OK(allow(at, 0, 2 * kChunk));
  CUdeviceptr base = 0, start = 0;
  size_t bytes = 0, room = 0;
  CUDA_OK(d.address_range(&base, &bytes, at + kChunk + 5));
  EXPECT_EQ(base, at + kChunk);
  EXPECT_EQ(bytes, kChunk);
  CUDA_OK(d.pointer_get(&start, kAttributeRangeStart, at + kChunk + 5));
  CUDA_OK(d.pointer_get(&room, kAttributeRangeSize, at + kChunk + 5));
  EXPECT_EQ(start, at);
  EXPECT_EQ(room, 3 * kChunk);
  uint64_t kinds = 0;
  CUDA_OK(d.pointer_get(&kinds, kAttributeHandleTypes, at));
  EXPECT_EQ(kinds, uint64_t{kDescriptorHandle});
  CUipcMemHandle handle;
  CUDA_GIVES(d.ipc_get(&handle, at), kInvalidValue);

  std::byte* host = pinned();
  const CUstream on = stream();
  CUDA_OK(d.set_async(at + kChunk - 100, 7, 200, on));
  CUDA_OK(d.copy_async(number_of(host), at + kChunk - 50, 100, on));
  CUDA_OK(d.stream_synchronize(on));
  EXPECT_EQ(host[0], std::byte{7});
  EXPECT_EQ(host[99], std::byte{7});
  cuda_double_set("fatal", 0);
  CUDA_GIVES(d.copy_async(number_of(host), at + 2 * kChunk - 50, 100, on), kIllegalAddress);
  cuda_double_break(0, kSuccess);
  CUDA_GIVES(d.address_free(at, 3 * kChunk), kInvalidValue) << "something is mapped";
  CUDA_OK(d.chunk_release(first));
  CUDA_OK(d.chunk_release(second));
  EXPECT_EQ(cuda_double_count("chunk_bytes"), 2 * kChunk);
  CUDA_OK(d.chunk_unmap(at, 2 * kChunk));
  CUDA_GIVES(d.chunk_unmap(at, kChunk), kInvalidValue);
  CUDA_OK(d.address_free(at, 3 * kChunk));
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(host));
}

TEST_F(Virtual, IsReachedByTheGpusThatMay) {
  const CUdeviceptr at = addresses(1);
  const CUmemHandle memory = chunk();
  CUDA_OK(d.chunk_map(at, kChunk, 0, memory, 0));
  const CUstream on = stream();
  cuda_double_set("fatal", 0);
  CUDA_GIVES(d.set_async(at, 1, 10, on), kIllegalAddress);
  cuda_double_break(0, kSuccess);
  CUDA_OK(allow(at, 0));
  CUDA_OK(d.set_async(at, 1, 10, on));
  CUDA_OK(d.stream_synchronize(on));
  const CUmemLocation other{kOnDevice, 1};
  unsigned long long flags = 1;
  CUDA_OK(d.chunk_allowed(&flags, &other, at));
  EXPECT_EQ(flags, 0u);
  cuda_double_set_peer(1, 0, 0);
  CUDA_GIVES(allow(at, 1), kPeerUnsupported);
  cuda_double_set_peer(1, 0, 1);
  CUDA_OK(allow(at, 1));
  CUDA_OK(d.chunk_allowed(&flags, &other, at));
  EXPECT_EQ(flags, static_cast<unsigned long long>(kReadWrite));
  CUDA_OK(d.chunk_unmap(at, kChunk));
  CUDA_OK(d.chunk_release(memory));
  CUDA_OK(d.address_free(at, kChunk));
  CUDA_OK(d.stream_destroy(on));
}

TEST_F(Virtual, HandlesAreThoseOfTheMappingAndKeepTheMemory) {
  const CUdeviceptr at = addresses(1);
  const CUmemHandle memory = chunk();
  CUDA_OK(d.chunk_map(at, kChunk, 0, memory, 0));
  CUDA_OK(d.chunk_release(memory));
  CUmemHandle same = 0, again = 0;
  CUDA_OK(d.chunk_retain(&same, pointer_of(at + 100)));
  CUDA_OK(d.chunk_retain(&again, pointer_of(at)));
  EXPECT_EQ(same, memory);
  EXPECT_EQ(again, memory);
  CUDA_OK(d.chunk_unmap(at, kChunk));
  CUDA_GIVES(d.chunk_retain(&again, pointer_of(at)), kInvalidValue);
  EXPECT_EQ(cuda_double_count("chunk_bytes"), kChunk);
  CUDA_OK(d.chunk_release(same));
  CUDA_OK(d.chunk_release(same));
  EXPECT_EQ(cuda_double_count("chunk_bytes"), 0u);
  cuda_double_set("fatal", 0);
  CUDA_GIVES(d.chunk_release(same), kInvalidValue);
  CUDA_OK(d.address_free(at, kChunk));
}

TEST_F(Virtual, DescriptorsAreOfTheSameMemoryWhereTheyMayBe) {
  const CUmemHandle memory = chunk(1), own = chunk(0, false);
  int fd = -1;
  CUDA_GIVES(d.chunk_export(&fd, own, kDescriptorHandle, 0), kInvalidValue);
  CUDA_OK(d.chunk_export(&fd, memory, kDescriptorHandle, 0));
  CUmemHandle imported = 0;
  const auto descriptor = [](int number) {
    return reinterpret_cast<void*>(static_cast<intptr_t>(number));
  };
  CUDA_OK(d.chunk_import(&imported, descriptor(fd), kDescriptorHandle));
  ::close(fd);
  CUDA_GIVES(d.chunk_import(&imported, descriptor(0), kDescriptorHandle), kInvalidValue);
  const CUdeviceptr here = addresses(2);
  CUDA_OK(d.chunk_map(here, kChunk, 0, memory, 0));
  CUDA_OK(d.chunk_map(here + kChunk, kChunk, 0, imported, 0));
  CUDA_OK(allow(here, 0, 2 * kChunk));
  const std::byte six{6};
  cuda_double_write(pointer_of(here + 1000), &six, 1);
  std::byte seen{};
  cuda_double_read(&seen, pointer_of(here + kChunk + 1000), 1);
  EXPECT_EQ(seen, six);
  int gpu = -1;
  CUDA_OK(d.pointer_get(&gpu, kAttributeOrdinal, here + kChunk));
  EXPECT_EQ(gpu, 1);
  CUDA_OK(d.chunk_unmap(here, kChunk));
  CUDA_OK(d.chunk_unmap(here + kChunk, kChunk));
  CUDA_OK(d.address_free(here, 2 * kChunk));
  for (const CUmemHandle each : {memory, own, imported}) CUDA_OK(d.chunk_release(each));
}

TEST_F(Virtual, FabricHandlesAreOfTheSameMemoryWhereThereAreAny) {
  int has = 1;
  CUDA_OK(d.device_attribute(&has, kFabricHandles, 0));
  EXPECT_EQ(has, 0);
  CUmemAllocationProp both = wanted(1);
  both.handle_types = kDescriptorHandle | kFabricHandle;
  CUmemHandle memory = 0, imported = 0;
  CUDA_GIVES(d.chunk_create(&memory, kChunk, &both, 0), kInvalidValue) << "of no known type";
  cuda_double_set("fabric", 1);
  CUDA_OK(d.device_attribute(&has, kFabricHandles, 1));
  EXPECT_EQ(has, 1);
  CUDA_OK(d.chunk_create(&memory, kChunk, &both, 0));
  const CUmemHandle own = chunk();
  CUmemFabricHandle fabric{};
  CUDA_GIVES(d.chunk_import(&imported, &fabric, kFabricHandle), kInvalidValue);
  CUDA_GIVES(d.chunk_export(&fabric, own, kFabricHandle, 0), kInvalidValue) << "not asked for";
  CUDA_OK(d.chunk_export(&fabric, memory, kFabricHandle, 0));
  cuda_double_set("fabric", 3);
  CUDA_GIVES(d.chunk_import(&imported, &fabric, kFabricHandle), kNotPermitted);
  cuda_double_set("fabric", 1);
  cuda_double_set("descriptors", 0);
  int fd = -1;
  CUDA_GIVES(d.chunk_export(&fd, memory, kDescriptorHandle, 0), kNotSupported);
  const uint64_t imports = cuda_double_count("fabric_imports");
  CUDA_OK(d.chunk_import(&imported, &fabric, kFabricHandle));
  EXPECT_EQ(cuda_double_count("fabric_imports"), imports + 1);
  const CUdeviceptr here = addresses(2);
  CUDA_OK(d.chunk_map(here, kChunk, 0, memory, 0));
  CUDA_OK(d.chunk_map(here + kChunk, kChunk, 0, imported, 0));
  CUDA_OK(allow(here, 0, 2 * kChunk));
  uint64_t kinds = 0;
  CUDA_OK(d.pointer_get(&kinds, kAttributeHandleTypes, here));
  EXPECT_EQ(kinds, uint64_t{kDescriptorHandle | kFabricHandle});
  const std::byte six{6};
  cuda_double_write(pointer_of(here + 1000), &six, 1);
  std::byte seen{};
  cuda_double_read(&seen, pointer_of(here + kChunk + 1000), 1);
  EXPECT_EQ(seen, six);
  CUDA_OK(d.chunk_unmap(here, 2 * kChunk));
  CUDA_OK(d.address_free(here, 2 * kChunk));
  for (const CUmemHandle each : {memory, own, imported}) CUDA_OK(d.chunk_release(each));
  CUDA_GIVES(d.chunk_import(&imported, &fabric, kFabricHandle), kInvalidValue) << "it is gone";
  cuda_double_set("fabric", 2);
  CUDA_GIVES(d.chunk_create(&memory, kChunk, &both, 0), kNotPermitted);
  CUDA_OK(d.chunk_release(chunk()));
}

TEST_F(Virtual, IsNotThereWhereItIsNotSupported) {
  cuda_double_set("chunks", 0);
  int has = 1;
  CUDA_OK(d.device_attribute(&has, kVirtualMemory, 0));
  EXPECT_EQ(has, 0);
  CUdeviceptr at = 0;
  CUDA_GIVES(d.address_reserve(&at, kChunk, 0, 0, 0), kNotSupported);
  cuda_double_set("chunks", 1);
  CUDA_GIVES(d.address_reserve(&at, 100, 0, 0, 0), kInvalidValue);
  const CUmemAllocationProp nowhere = wanted(7);
  CUmemHandle made = 0;
  CUDA_GIVES(d.chunk_create(&made, kChunk, &nowhere, 0), kInvalidValue);
}

}  // namespace
}  // namespace libcomm::cuda::test
