// What needs processes: memory of others by IPC, forks, and misuse that ends the process.
#include <fcntl.h>

#include "tests/doubles/child.h"
#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

using libcomm::test::Child;
using libcomm::test::give;
using libcomm::test::take;

class Ipc : public Program {
 protected:
  // A program of its own in the child: CUDA of this process is of no use there.
  void start_in_child() {
    if (a.init(0) != kSuccess) ::_exit(2);
    for (int i = 0; i < 2; ++i) {
      if (d.primary_retain(&contexts[i], i) != kSuccess) ::_exit(3);
    }
    if (a.context_set(contexts[0]) != kSuccess) ::_exit(4);
  }
  // Exports memory of GPU 0 that it has filled, and frees it or ends when it is told.
  void export_memory(int socket) {
    start_in_child();
    const CUdeviceptr memory = device_memory();
    const std::vector<std::byte> filled(kBytes, std::byte{6});
    cuda_double_write(pointer_of(memory), filled.data(), kBytes);
    CUipcMemHandle handle;
    if (d.ipc_get(&handle, memory) != kSuccess) ::_exit(5);
    give(socket, handle);
    (void)take<char>(socket);
    std::byte changed;
    cuda_double_read(&changed, pointer_of(memory + 8), 1);
    give(socket, changed);
    if (d.memory_free(memory) != kSuccess) ::_exit(6);
    give(socket, 'f');
    (void)take<char>(socket);
  }
};

TEST_F(Ipc, MemoryOfAnotherProcessIsOneMemory) {
  Child child([&](int socket) { export_memory(socket); });
  const auto handle = take<CUipcMemHandle>(child.socket());
  CUdeviceptr memory = 0, again = 0;
  CUDA_GIVES(d.ipc_open(&memory, handle, 0), kInvalidValue);
  CUDA_OK(d.ipc_open(&memory, handle, 1));
  CUDA_OK(d.ipc_open(&again, handle, 1));
  EXPECT_EQ(memory, again);
  EXPECT_EQ(cuda_double_count("ipc_open"), 2u);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CUDA_OK(d.address_range(&base, &bytes, memory + 5));
  EXPECT_EQ(base, memory);
  EXPECT_EQ(bytes, kBytes);
  std::byte* host = pinned();
  const CUstream on = stream();
  CUDA_OK(d.copy_async(number_of(host), memory, kBytes, on));
  CUDA_OK(d.set_async(memory + 8, 9, 1, on));
  CUDA_OK(d.stream_synchronize(on));
  EXPECT_EQ(host[kBytes - 1], std::byte{6});
  give(child.socket(), 'c');
  EXPECT_EQ(take<std::byte>(child.socket()), std::byte{9});
  EXPECT_EQ(take<char>(child.socket()), 'f');

  CUipcMemHandle further;
  CUDA_GIVES(d.ipc_get(&further, memory), kInvalidValue);  // not its own
  CUDA_GIVES(d.memory_free(memory), kInvalidValue);
  CUDA_OK(d.ipc_close(memory));
  CUDA_OK(d.ipc_close(memory));
  EXPECT_EQ(cuda_double_count("ipc_open"), 0u);
  CUDA_GIVES(d.ipc_close(memory), kInvalidValue);
  CUDA_GIVES(d.ipc_open(&memory, handle, 1), kInvalidHandle) << "it is freed";
  (void)child.end(SIGKILL);
  CUDA_GIVES(d.ipc_open(&memory, handle, 1), kInvalidHandle) << "its process is dead";
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(host));
}

TEST_F(Ipc, HandlesAreOpenedByOtherProcessesThatReachTheGpu) {
  const CUdeviceptr own = device_memory();
  CUipcMemHandle handle;
  CUDA_GIVES(d.ipc_get(&handle, own + 16), kInvalidValue);
  CUDA_OK(d.ipc_get(&handle, own));
  CUdeviceptr opened = 0;
  CUDA_GIVES(d.ipc_open(&opened, handle, 1), kInvalidContext);  // of this process
  handle.reserved[0] ^= 1;
  CUDA_GIVES(d.ipc_open(&opened, handle, 1), kInvalidHandle);
  CUDA_OK(d.memory_free(own));

  Child child([&](int socket) { export_memory(socket); });
  const auto other = take<CUipcMemHandle>(child.socket());
  CUDA_OK(d.context_push(contexts[1]));
  cuda_double_set_peer(1, 0, 0);
  CUDA_GIVES(d.ipc_open(&opened, other, 1), kPeerUnsupported);
  cuda_double_set_peer(1, 0, 1);
  CUDA_OK(d.ipc_open(&opened, other, 1));
  CUDA_OK(d.set_async(opened + 8, 3, 1, nullptr));
  CUDA_OK(d.stream_synchronize(nullptr));
  give(child.socket(), 'c');
  EXPECT_EQ(take<std::byte>(child.socket()), std::byte{3});
  CUDA_OK(d.ipc_close(opened));
  CUcontext popped = nullptr;
  CUDA_OK(d.context_pop(&popped));
}

using Fork = Program;

TEST_F(Fork, TheChildHasNoCudaUntilItInitialisesIt) {
  const CUdeviceptr memory = device_memory();
  const CUstream on = stream();
  CUDA_OK(d.set_async(memory, 1, kBytes, on));  // the stream has its thread
  cuda_double_set("version", 12345);
  Child child([&](int socket) {
    int version = 0;
    int count = 0;
    CUcontext context = nullptr;
    std::vector<CUresult> results = {
        d.stream_synchronize(on), d.stream_query(on),          d.memory_free(memory),
        d.device_count(&count),   d.context_current(&context), d.primary_retain(&context, 0),
        d.stream_destroy(on),     a.context_synchronize(),     d.pointer_get(&count, 2, memory)};
    int refused = 0;
    for (const CUresult each : results) refused += each == kNotInitialized ? 1 : 0;
    give(socket, refused == static_cast<int>(results.size()));
    (void)d.driver_version(&version);
    give(socket, version);  // settings stay
    give(socket, a.init(0));
    give(socket, d.context_current(&context));
    give(socket, context == nullptr);
    give(socket, d.primary_retain(&context, 0));
    give(socket, a.context_set(context));
    CUstream own = nullptr;
    CUdeviceptr mine = 0;
    give(socket, a.stream_create_simple(&own, 0));
    give(socket, d.memory_alloc(&mine, 100));
    give(socket, d.set_async(mine, 1, 100, own));
    give(socket, d.stream_synchronize(own));
  });
  EXPECT_TRUE(take<bool>(child.socket()));
  EXPECT_EQ(take<int>(child.socket()), 12345);
  CUDA_OK(take<CUresult>(child.socket()));
  CUDA_OK(take<CUresult>(child.socket()));
  EXPECT_TRUE(take<bool>(child.socket()));
  for (int i = 0; i < 6; ++i) CUDA_OK(take<CUresult>(child.socket()));
  EXPECT_EQ(child.end(0), 0);
  cuda_double_set("version", 13000);
  CUDA_OK(d.stream_synchronize(on));  // the parent's goes on
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.memory_free(memory));
}

void touch(const void* at, unsigned, unsigned) {
  void* pointer = nullptr;
  std::memcpy(&pointer, at, sizeof pointer);
  (void)cuda_double_resolve(pointer, 64);
}

class Fatal : public Program {
 protected:
  // Runs a kernel that touches 64 bytes there.
  void touch_at(const void* pointer) {
    cuda_double_register_kernel("test_touch", sizeof pointer, touch);
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    (void)d.module_load(&module, "image");
    (void)d.module_function(&function, module, "test_touch");
    void* parameters[] = {&pointer};
    (void)d.launch(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
    (void)d.stream_synchronize(nullptr);
  }
  // In a process of its own, with CUDA of its own.
  template <typename Body>
  void dies(const char* text, Body body) {
    EXPECT_DEATH(
        {
          SetUp();
          body();
        },
        text);
  }
};

TEST_F(Fatal, ProcessorsDoNotTouchDeviceMemory) {
  dies("", [&] { *static_cast<volatile char*>(pointer_of(device_memory())) = 1; });
}

TEST_F(Fatal, CopiesStayWithinTheirMemory) {
  dies("cuMemcpyAsync: 6000 bytes at .* reach past the end", [&] {
    const CUdeviceptr first = device_memory(), second = device_memory();
    (void)d.copy_async(first + 1, second, kBytes, nullptr);
  });
  dies("6000 bytes at .* were freed before they are used", [&] {
    const CUdeviceptr first = device_memory(), second = device_memory();
    (void)d.memory_free(second);
    (void)d.copy_async(first, second, kBytes, nullptr);
  });
  dies("cuMemFree_v2: .* was freed before", [&] {
    const CUdeviceptr first = device_memory();
    (void)d.memory_free(first);
    (void)d.memory_free(first);
  });
}

// Copies between GPUs need no peer access (CUDA C++ Programming Guide, "Peer-to-Peer Memory Copy").
TEST_F(Fatal, RegisteredMemoryIsThatOfItsContext) {
  dies("GPU 0 may not touch .* of GPU 1", [&] {
    std::vector<std::byte> plain(kBytes);
    (void)a.context_set(contexts[1]);
    (void)d.host_register(plain.data(), kBytes, 0);  // for that context alone
    (void)a.context_set(contexts[0]);
    const CUdeviceptr near = device_memory();
    (void)d.copy_async(near, number_of(plain.data()), kBytes, nullptr);
  });
}

TEST_F(Fatal, KernelsTouchWhatTheirGpuReaches) {
  dies("a kernel touches 64 bytes of pageable host memory", [&] {
    char plain[64];
    touch_at(plain);
  });
  dies("64 bytes at .* reach past the end of their 6000 bytes",
       [&] { touch_at(pointer_of(device_memory() + kBytes - 63)); });
  dies("GPU 0 may not touch .* of GPU 1", [&] {
    (void)a.context_set(contexts[1]);
    const CUdeviceptr far = device_memory();
    (void)a.context_set(contexts[0]);
    touch_at(pointer_of(far));
  });
}

TEST_F(Fatal, GraphsDoNotOutliveTheirMemory) {
  dies("a stream: an operation uses the freed memory", [&] {
    const CUstream on = stream();
    const CUdeviceptr memory = device_memory();
    CUgraph graph = nullptr;
    CUgraphExec executable = nullptr;
    (void)a.begin_capture(on, kCaptureRelaxed);
    (void)d.set_async(memory, 1, kBytes, on);
    (void)a.end_capture(on, &graph);
    (void)a.instantiate(&executable, graph, 0);
    (void)d.memory_free(memory);
    (void)a.graph_launch(executable, on);
    (void)d.stream_synchronize(on);
  });
}

TEST_F(Fatal, StreamsWaitOnMemoryThatADeviceReaches) {
  dies("the word at .* is pageable host memory", [&] {
    uint32_t word = 0;
    (void)d.stream_wait_value(nullptr, number_of(&word), 1, kWaitEqual);
  });
}

TEST_F(Fatal, HostFunctionsDoNotCallTheDriver) {
  dies("cuCtxGetDevice: called by a host function", [&] {
    (void)d.host_function(
        nullptr,
        [](void*) {
          CUdevice device = 0;
          (void)Driver::find()->context_device(&device);
        },
        nullptr);
    (void)d.stream_synchronize(nullptr);
  });
}

TEST_F(Fatal, HandlesAreLive) {
  dies("is no live stream", [&] {
    const CUstream on = stream();
    (void)d.stream_destroy(on);
    (void)d.stream_synchronize(on);
  });
  dies("is no live event", [&] {
    const CUevent done = event();
    (void)d.event_destroy(done);
    (void)d.event_record(done, nullptr);
  });
  dies("is no loaded module", [&] {
    CUmodule module = nullptr;
    (void)d.module_load(&module, "image");
    (void)d.module_unload(module);
    (void)d.module_unload(module);
  });
  dies("cuda_double_count knows no \"stream\"", [&] { (void)cuda_double_count("stream"); });
}

}  // namespace
}  // namespace libcomm::cuda::test
