// A program that uses CUDA, on the double: two GPUs with their contexts, the first one current.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "tests/doubles/cuda/application.h"
#include "tests/doubles/cuda/control.h"

namespace libcomm::cuda::test {

inline std::string name_of(CUresult result) {
  const char* name = nullptr;
  (void)Driver::find()->error_name(result, &name);
  return name != nullptr ? name : std::to_string(result);
}

// The result of a call, with its name where it is not the wanted one.
inline testing::AssertionResult gives(CUresult result, CUresult wanted) {
  if (result == wanted) return testing::AssertionSuccess();
  return testing::AssertionFailure() << name_of(result) << ", not " << name_of(wanted);
}
#define CUDA_OK(call) EXPECT_TRUE(gives((call), kSuccess))
#define CUDA_GIVES(call, wanted) EXPECT_TRUE(gives((call), wanted))

class Program : public testing::Test {
 protected:
  static constexpr size_t kBytes = 6000;  // no whole pages

  Program() : library_(::dlopen("libcuda.so.1", RTLD_NOW)), a(Application::in(library_)) {}
  ~Program() override { ::dlclose(library_); }

  void SetUp() override {
    ASSERT_NE(Driver::find(), nullptr);
    CUDA_OK(a.init(0));
    for (int i = 0; i < 2; ++i) CUDA_OK(d.primary_retain(&contexts[i], i));
    CUDA_OK(a.context_set(contexts[0]));
  }
  // What a test leaves is a leak of the test or of the double.
  void TearDown() override {
    cuda_double_set("fatal", 1);
    cuda_double_set("slow_us", 0);
    for (const char* what : {"streams", "events", "modules", "graphs", "device_bytes",
                             "pinned_bytes", "managed_bytes"})
      EXPECT_EQ(cuda_double_count(what), 0u) << what;
    CUDA_OK(a.context_set(nullptr));
    for (int i = 0; i < 2; ++i) CUDA_OK(d.primary_release(i));
  }

  CUdeviceptr device_memory(size_t bytes = kBytes) {
    CUdeviceptr made = 0;
    CUDA_OK(d.memory_alloc(&made, bytes));
    return made;
  }
  template <typename T = std::byte>
  T* pinned(size_t count = kBytes / sizeof(T)) {
    void* made = nullptr;
    CUDA_OK(d.host_alloc(&made, count * sizeof(T), kPortable));
    return static_cast<T*>(made);
  }
  CUstream stream(unsigned flags = kStreamNonBlocking) {
    CUstream made = nullptr;
    CUDA_OK(a.stream_create_simple(&made, flags));
    return made;
  }
  CUevent event() {
    CUevent made = nullptr;
    CUDA_OK(d.event_create(&made, kEventNoTiming));
    return made;
  }
  // A function in the stream that counts.
  CUresult count_in(CUstream in, std::atomic<int>* counter) {
    return d.host_function(
        in, [](void* at) { ++*static_cast<std::atomic<int>*>(at); }, counter);
  }

 private:
  void* library_;

 protected:
  const Driver& d = *Driver::find();
  const Application a;
  CUcontext contexts[2] = {};
};

}  // namespace libcomm::cuda::test
