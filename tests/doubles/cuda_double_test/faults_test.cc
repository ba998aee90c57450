// Failures that tests ask for.
#include <chrono>
#include <thread>

#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

using Faults = Program;

TEST_F(Faults, TheNthCallFails) {
  CUstream made = nullptr;
  cuda_double_fail("cuStreamCreate", 2, kOutOfMemory);
  CUDA_OK(a.stream_create_simple(&made, 0));
  CUstream second = nullptr;
  CUDA_GIVES(a.stream_create_simple(&second, 0), kOutOfMemory);
  EXPECT_EQ(second, nullptr);
  CUDA_OK(a.stream_create_simple(&second, 0));
  cuda_double_fail("cuStreamDestroy_v2", 1, kInvalidValue);
  cuda_double_fail("cuStreamDestroy_v2", 0, 0);
  CUDA_OK(d.stream_destroy(made));
  CUDA_OK(d.stream_destroy(second));
}

TEST_F(Faults, AStickyErrorEndsAllWorkOfItsContextAndNoOther) {
  uint32_t* word = pinned<uint32_t>();
  *word = 0;
  const CUstream on = stream();
  std::atomic<int> ran = 0;
  CUDA_OK(d.stream_wait_value(on, number_of(word), 1, kWaitEqual));
  CUDA_OK(count_in(on, &ran));
  std::thread waiting([&] {
    CUDA_OK(a.context_set(contexts[0]));
    CUDA_GIVES(d.stream_synchronize(on), kLaunchFailed);
  });
  cuda_double_break(0, kLaunchFailed);
  waiting.join();
  CUdeviceptr memory = 0;
  CUDA_GIVES(d.memory_alloc(&memory, 1), kLaunchFailed);
  CUDA_GIVES(d.stream_query(on), kLaunchFailed);
  CUDA_OK(d.context_push(contexts[1]));
  CUDA_OK(d.memory_alloc(&memory, 1));
  CUDA_OK(d.memory_free(memory));
  CUcontext popped = nullptr;
  CUDA_OK(d.context_pop(&popped));
  cuda_double_break(0, kSuccess);
  CUDA_OK(d.stream_destroy(on));
  CUDA_OK(d.host_free(word));
}

TEST_F(Faults, MisuseIsStickyWhereItIsNotFatal) {
  cuda_double_set("fatal", 0);
  const CUdeviceptr device = device_memory(), other = device_memory();
  const CUstream on = stream();
  CUDA_GIVES(d.copy_async(device, other + 1, kBytes, on), kIllegalAddress);
  CUDA_GIVES(d.stream_query(on), kIllegalAddress);
  cuda_double_break(0, kSuccess);
  CUDA_OK(d.stream_destroy(on));
  CUDA_GIVES(d.stream_destroy(on), kInvalidHandle);
  CUDA_OK(d.memory_free(device));
  CUDA_OK(d.memory_free(other));
}

TEST_F(Faults, SlowStreamsTakeTheirTimeForEachOperation) {
  const auto begin = std::chrono::steady_clock::now();
  cuda_double_set("slow_us", 20000);
  const CUstream on = stream();
  std::atomic<int> ran = 0;
  CUDA_OK(count_in(on, &ran));
  CUDA_OK(count_in(on, &ran));
  CUDA_OK(d.stream_synchronize(on));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(40));
  EXPECT_EQ(ran, 2);
  CUDA_OK(d.stream_destroy(on));
}

TEST_F(Faults, BeforeItIsInitialisedTheDriverRefusesEverything) {
  cuda_double_set("initialised", 0);
  int count = 0;
  CUcontext context = nullptr;
  CUDA_GIVES(d.device_count(&count), kNotInitialized);
  CUDA_GIVES(d.primary_retain(&context, 0), kNotInitialized);
  CUDA_GIVES(d.context_current(&context), kNotInitialized);
  CUDA_GIVES(a.context_synchronize(), kNotInitialized);
  CUDA_OK(d.driver_version(&count));
  cuda_double_set("devices", 0);
  CUDA_GIVES(a.init(0), kNoDevice);
  cuda_double_set("devices", 3);
  CUDA_OK(a.init(0));
  CUDA_OK(d.device_count(&count));
}

TEST_F(Faults, AContextEndsWithItsLastUser) {
  CUcontext third = nullptr;
  CUDA_OK(d.primary_retain(&third, 2));
  CUDA_OK(d.context_push(third));
  (void)device_memory();
  (void)stream();
  (void)event();
  CUDA_OK(d.primary_release(2));  // all of it ends: TearDown counts
  CUdeviceptr memory = 0;
  CUDA_GIVES(d.memory_alloc(&memory, 1), kContextIsDestroyed);
  CUDA_GIVES(d.primary_release(2), kInvalidContext);
  CUDA_OK(d.context_pop(&third));
  CUDA_GIVES(d.context_push(third), kContextIsDestroyed);
}

TEST_F(Faults, ErrorsHaveNamesAndTexts) {
  const Status failed = d.check(kOutOfMemory, "cuMemAlloc");
  EXPECT_NE(failed.to_string().find("CUDA_ERROR_OUT_OF_MEMORY (out of memory)"), std::string::npos)
      << failed.to_string();
  const char* name = "";
  CUDA_GIVES(d.error_name(12345, &name), kInvalidValue);
  EXPECT_EQ(name, nullptr);
}

}  // namespace
}  // namespace libcomm::cuda::test
