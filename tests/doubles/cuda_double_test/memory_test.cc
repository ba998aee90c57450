// Device, pinned, registered and managed memory, copies between them, and what is counted of them.
#include <unistd.h>

#include <thread>

#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

class Memory : public Program {
 protected:
  // -1: the driver does not know it.
  int attribute(int which, const void* pointer) {
    int value = 0;
    return d.pointer_get(&value, which, number_of(pointer)) == kSuccess ? value : -1;
  }
};

TEST_F(Memory, EachKindIsToldByItsAttributes) {
  const CUdeviceptr device = device_memory();
  std::byte* host = pinned();
  CUdeviceptr managed = 0;
  CUDA_OK(a.managed_alloc(&managed, kBytes, 1));
  std::vector<std::byte> plain(kBytes), registered(kBytes);
  CUDA_OK(d.host_register(registered.data(), kBytes, kPortable));

  EXPECT_EQ(attribute(kAttributeMemoryType, pointer_of(device + kBytes - 1)), int{kTypeDevice});
  EXPECT_EQ(attribute(kAttributeIsManaged, pointer_of(device)), 0);
  EXPECT_EQ(attribute(kAttributeOrdinal, pointer_of(device)), 0);
  EXPECT_EQ(attribute(kAttributeMemoryType, pointer_of(managed)), int{kTypeDevice});
  EXPECT_EQ(attribute(kAttributeIsManaged, pointer_of(managed)), 1);
  EXPECT_EQ(attribute(kAttributeMemoryType, host), int{kTypeHost});
  EXPECT_EQ(attribute(kAttributeMemoryType, registered.data() + 1), int{kTypeHost});
  EXPECT_EQ(attribute(kAttributeMemoryType, plain.data()), -1);
  CUcontext context = nullptr;
  CUDA_OK(d.pointer_get(&context, kAttributeContext, device + 7));
  EXPECT_EQ(context, contexts[0]);
  const int yes = 1;
  CUDA_OK(d.pointer_set(&yes, kAttributeSyncMemops, device));
  CUDA_GIVES(d.pointer_set(&yes, kAttributeSyncMemops, number_of(plain.data())), kInvalidValue);

  EXPECT_EQ(cuda_double_count("device_bytes"), kBytes);
  EXPECT_EQ(cuda_double_count("managed_bytes"), kBytes);
  EXPECT_EQ(cuda_double_count("pinned_bytes"), 2 * kBytes);
  *static_cast<char*>(pointer_of(managed)) = 1;  // a processor may
  CUDA_OK(d.host_unregister(registered.data()));
  CUDA_OK(d.host_free(host));
  CUDA_OK(d.memory_free(managed));
  CUDA_OK(d.memory_free(device));
}

TEST_F(Memory, RangesAreThoseThatWereAskedFor) {
  const CUdeviceptr device = device_memory();
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CUDA_OK(d.address_range(&base, &bytes, device + 100));
  EXPECT_EQ(base, device);
  EXPECT_EQ(bytes, kBytes);
  CUDA_GIVES(d.address_range(&base, &bytes, number_of(&bytes)), kNotFound);
  int fd = -1;
  CUDA_GIVES(d.range_handle(&fd, device, kBytes, 1, 0), kInvalidValue);  // no whole pages
  CUDA_OK(d.range_handle(&fd, device, 8192, 1, 0));
  ::close(fd);
  CUDA_OK(d.memory_free(device));
  CUDA_GIVES(d.address_range(&base, &bytes, device), kNotFound);
}

TEST_F(Memory, HostMemoryIsRegisteredOnceAndFreedAsItWasMade) {
  std::vector<std::byte> plain(kBytes);
  CUDA_OK(d.host_register(plain.data(), kBytes, 0));
  CUDA_GIVES(d.host_register(plain.data() + 10, 10, 0), kAlreadyRegistered);
  CUdeviceptr device = 0;
  CUDA_OK(d.host_device_pointer(&device, plain.data() + 5, 0));
  EXPECT_EQ(device, number_of(plain.data() + 5));
  CUDA_GIVES(d.host_free(plain.data()), kInvalidValue);
  CUDA_OK(d.host_unregister(plain.data()));
  CUDA_GIVES(d.host_unregister(plain.data()), kNotRegistered);
  CUDA_GIVES(d.host_device_pointer(&device, plain.data(), 0), kInvalidValue);

  const CUdeviceptr memory = device_memory();
  CUDA_GIVES(d.host_free(pointer_of(memory)), kInvalidValue);
  CUDA_GIVES(d.memory_free(memory + 1), kInvalidValue);
  CUDA_OK(d.memory_free(memory));
}

TEST_F(Memory, CopiesArriveAndAreCountedByKind) {
  const CUdeviceptr first = device_memory(), second = device_memory();
  std::byte* host = pinned();
  const CUstream on = stream();
  const auto count = [](const char* what) { return cuda_double_count(what); };
  const uint64_t before[] = {count("h2d_bytes"), count("d2d_bytes"), count("d2h_bytes"),
                             count("pageable")};
  std::memset(host, 5, kBytes);
  CUDA_OK(d.copy_async(first, number_of(host), kBytes, on));
  CUDA_OK(d.copy_async(second + 1, first, kBytes - 1, on));
  CUDA_OK(d.set_async(second, 9, 1, on));
  CUDA_OK(d.stream_synchronize(on));
  std::memset(host, 0, kBytes);
  CUDA_OK(d.copy_async(number_of(host), second, kBytes, on));
  CUDA_OK(d.stream_synchronize(on));
  EXPECT_EQ(host[0], std::byte{9});
  EXPECT_EQ(host[kBytes - 1], std::byte{5});
  EXPECT_EQ(count("h2d_bytes") - before[0], kBytes);
  EXPECT_EQ(count("d2d_bytes") - before[1], kBytes - 1);
  EXPECT_EQ(count("d2h_bytes") - before[2], kBytes);
  EXPECT_EQ(count("pageable"), before[3]);
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(host));
  CUDA_OK(d.memory_free(first));
  CUDA_OK(d.memory_free(second));
}

TEST_F(Memory, PageableMemoryIsReadBeforeTheCallReturnsAndWrittenBeforeItReturns) {
  const CUdeviceptr device = device_memory();
  const CUstream on = stream();
  std::vector<std::byte> plain(kBytes, std::byte{3});
  const uint64_t before = cuda_double_count("pageable_bytes");
  cuda_double_pause(on);
  CUDA_OK(d.copy_async(device, number_of(plain.data()), kBytes, on));
  plain.assign(kBytes, std::byte{4});
  cuda_double_resume(on);
  CUDA_OK(d.copy_async(number_of(plain.data()), device, kBytes, on));
  EXPECT_EQ(plain.back(), std::byte{3});  // without any other wait
  EXPECT_EQ(cuda_double_count("pageable_bytes") - before, 2 * kBytes);
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.memory_free(device));
}

TEST_F(Memory, FreeingWaitsForAllWorkOfTheContext) {
  const CUdeviceptr device = device_memory(), other = device_memory();
  uint32_t* word = pinned<uint32_t>();
  const CUstream on = stream();
  std::atomic<int> ran = 0;
  *word = 0;
  CUDA_OK(d.stream_wait_value(on, number_of(word), 1, kWaitEqual));
  CUDA_OK(count_in(on, &ran));
  std::thread later([&] { std::atomic_ref(*word).store(1, std::memory_order_release); });
  CUDA_OK(d.memory_free(device));
  EXPECT_EQ(ran, 1);
  later.join();
  CUDA_OK(d.memory_free(other));
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(word));
}

TEST_F(Memory, OfOtherGpusIsReachedOnceAccessIsEnabled) {
  int can = 0;
  CUDA_OK(d.can_access_peer(&can, 0, 1));
  EXPECT_EQ(can, 1);
  CUDA_OK(a.context_set(contexts[1]));
  const CUdeviceptr far = device_memory();
  CUDA_OK(a.context_set(contexts[0]));
  const CUdeviceptr near = device_memory();
  const CUstream on = stream();
  cuda_double_set_peer(0, 1, 0);
  CUDA_OK(d.can_access_peer(&can, 0, 1));
  EXPECT_EQ(can, 0);
  CUDA_GIVES(d.enable_peer(contexts[1], 0), kPeerUnsupported);
  cuda_double_set_peer(0, 1, 1);
  CUDA_OK(d.enable_peer(contexts[1], 0));
  CUDA_GIVES(d.enable_peer(contexts[1], 0), kPeerAlreadyEnabled);
  CUDA_GIVES(d.enable_peer(contexts[0], 0), kInvalidDevice);
  CUDA_OK(d.copy_async(near, far, kBytes, on));
  CUDA_OK(d.stream_synchronize(on));
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.memory_free(near));
  CUDA_OK(d.memory_free(far));
}

TEST_F(Memory, EndsWhereATestSaysSo) {
  cuda_double_set("memory_kib", 10);
  CUdeviceptr made = 0;
  CUDA_GIVES(d.memory_alloc(&made, 10241), kOutOfMemory);
  CUDA_OK(d.memory_alloc(&made, 10000));
  CUdeviceptr more = 0;
  CUDA_GIVES(d.memory_alloc(&more, 10000), kOutOfMemory);
  CUDA_OK(d.memory_free(made));
  CUDA_OK(d.memory_alloc(&made, 10000));
  CUDA_OK(d.memory_free(made));
  cuda_double_set("memory_kib", -1);
}

}  // namespace
}  // namespace libcomm::cuda::test
