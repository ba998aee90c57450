// Modules, kernels and devices.
#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

struct AddArguments {
  CUdeviceptr to, from;
  uint64_t count;
  int number;
};

// Adds a number to bytes; each block has its share.
void add(const void* at, unsigned grid, unsigned block) {
  AddArguments arguments;
  std::memcpy(&arguments, at, sizeof arguments);
  auto* to =
      static_cast<unsigned char*>(cuda_double_resolve(pointer_of(arguments.to), arguments.count));
  const auto* from = static_cast<const unsigned char*>(
      cuda_double_resolve(pointer_of(arguments.from), arguments.count));
  for (unsigned each = 0; each < grid; ++each) {
    for (uint64_t i = each; i < arguments.count; i += grid)
      to[i] = static_cast<unsigned char>(from[i] + arguments.number + static_cast<int>(block) - 32);
  }
}

class Modules : public Program {
 protected:
  void SetUp() override {
    Program::SetUp();
    cuda_double_register_kernel("test_add", sizeof(AddArguments), add);
    CUDA_OK(d.module_load(&module, "an image"));
    CUDA_OK(d.module_function(&function, module, "test_add"));
  }
  void TearDown() override {
    CUDA_OK(d.module_unload(module));
    Program::TearDown();
  }
  CUresult launch(CUstream on, AddArguments* arguments, unsigned grid = 3, unsigned block = 32) {
    void* parameters[] = {arguments};
    return d.launch(function, grid, 1, 1, block, 1, 1, 0, on, parameters, nullptr);
  }

  CUmodule module = nullptr;
  CUfunction function = nullptr;
};

TEST_F(Modules, KernelsRunInTheirStreamWithTheArgumentsOfTheLaunch) {
  const CUdeviceptr device = device_memory();
  auto* host = reinterpret_cast<unsigned char*>(pinned());
  const CUstream on = stream();
  std::memset(host, 4, kBytes);
  AddArguments arguments = {device, number_of(host), kBytes, 1};
  const uint64_t before = cuda_double_launches("test_add");
  cuda_double_pause(on);
  CUDA_OK(launch(on, &arguments));
  arguments = {device, device, kBytes, 2};
  CUDA_OK(launch(on, &arguments));
  arguments = {};
  CUDA_OK(d.copy_async(number_of(host), device, kBytes, on));
  EXPECT_EQ(cuda_double_launches("test_add"), before);
  cuda_double_resume(on);
  CUDA_OK(d.stream_synchronize(on));
  EXPECT_EQ(cuda_double_launches("test_add"), before + 2);
  EXPECT_EQ(host[0], 7);
  EXPECT_EQ(host[kBytes - 1], 7);
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(host));
  CUDA_OK(d.memory_free(device));
}

TEST_F(Modules, RefuseWhatTheyDoNotHave) {
  CUmodule other = nullptr;
  CUDA_GIVES(d.module_load(&other, nullptr), kInvalidValue);
  CUfunction none = nullptr;
  CUDA_GIVES(d.module_function(&none, module, "no such kernel"), kNotFound);
  AddArguments arguments = {};
  CUDA_GIVES(launch(nullptr, &arguments, 0), kInvalidValue);
  CUDA_GIVES(launch(nullptr, &arguments, 1, 2000), kInvalidValue);
  CUDA_OK(d.context_push(contexts[1]));
  CUDA_GIVES(launch(nullptr, &arguments), kInvalidHandle);  // of the other GPU
  CUcontext popped = nullptr;
  CUDA_OK(d.context_pop(&popped));
  const CUstream on = stream();
  CUDA_OK(d.context_push(contexts[1]));
  CUDA_GIVES(launch(on, &arguments), kInvalidHandle);
  CUDA_OK(d.context_pop(&popped));
  CUDA_OK(d.stream_destroy(on));
  EXPECT_EQ(cuda_double_count("modules"), 1u);
}

TEST_F(Modules, OfEightDevicesAllAreDescribed) {
  cuda_double_set("devices", 8);
  int count = 0;
  CUDA_OK(d.device_count(&count));
  EXPECT_EQ(count, 8);
  std::vector<std::string> places;
  for (int i = 0; i < count; ++i) {
    CUdevice device = -1;
    char text[64] = "";
    CUDA_OK(d.device_get(&device, i));
    CUDA_OK(d.device_name(text, sizeof text, device));
    EXPECT_NE(text[0], '\0');
    CUDA_OK(d.device_pci(text, sizeof text, device));
    char uuid[16];
    CUDA_OK(d.device_uuid(uuid, device));
    places.push_back(text + std::string(uuid, 16));
    for (const std::string& before : std::vector(places.begin(), places.end() - 1))
      EXPECT_NE(places.back(), before);
  }
  CUdevice device = -1;
  CUDA_GIVES(d.device_get(&device, 8), kInvalidDevice);
  cuda_double_set("devices", 3);
  int multiprocessors = 0, version = 0;
  cuda_double_set("multiprocessors", 17);
  CUDA_OK(d.device_attribute(&multiprocessors, kMultiprocessors, 0));
  EXPECT_EQ(multiprocessors, 17);
  cuda_double_set("multiprocessors", 4);
  cuda_double_set("version", 11070);
  CUDA_OK(d.driver_version(&version));
  EXPECT_EQ(version, 11070);
  cuda_double_set("version", 13000);
}

}  // namespace
}  // namespace libcomm::cuda::test
