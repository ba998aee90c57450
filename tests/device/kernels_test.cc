// Kernels through the driver's calls, on the double: results, loading, capture, errors.
#include "src/device/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "src/device/image.h"
#include "tests/device/double_machine.h"
#include "tests/device/kernel_cases.h"
#include "tests/doubles/cuda_double_test/program.h"
#include "tests/reduce/reference.h"

namespace libcomm::cuda::test {
namespace {

using ::testing::HasSubstr;

class OnTheDouble : public ::testing::TestWithParam<DataType> {};

std::string type_name(const ::testing::TestParamInfo<DataType>& info) {
  return libcomm::name_of(info.param);
}

TEST_P(OnTheDouble, ReductionsGiveTheBitsOfTheHost) {
  check_reductions(*double_machine(3), GetParam(), {1, 67, 40037 / size_of(GetParam())});
}

INSTANTIATE_TEST_SUITE_P(Types, OnTheDouble, ::testing::ValuesIn(reference::all_types()),
                         type_name);

TEST(OnTheDouble, LaunchesTakeAsManyArraysAsTheyHold) { check_most_arrays(*double_machine(4)); }
TEST(OnTheDouble, SmallFloatsAreRoundedAsOnTheHost) { check_small_floats(*double_machine(4)); }
TEST(OnTheDouble, SpecialValuesAreTreatedAsOnTheHost) { check_special_values(*double_machine(4)); }
TEST(OnTheDouble, SegmentsOfAnyAlignmentAreCopied) { check_copies(*double_machine(4)); }

class KernelsTest : public Program {
 protected:
  std::shared_ptr<const Kernels> kernels(int gpu = 0) {
    auto held = Kernels::of(d, contexts[gpu]);
    EXPECT_TRUE(held) << held.status().message();
    return held ? *held : nullptr;
  }
  // A sum of two arrays in device memory into the first.
  ReduceArguments sum(size_t count) {
    ReduceArguments arguments;
    arguments.count = count;
    arguments.source_count = 2;
    arguments.destination_count = 1;
    for (int s = 0; s < 2; ++s) {
      memory_.push_back(device_memory(count * sizeof(float) + 64));
      const std::vector<float> ones(count, 1);
      cuda_double_write(pointer_of(memory_.back()), ones.data(), count * sizeof(float));
      arguments.sources[s] = pointer_of(memory_.back());
    }
    arguments.destinations[0] = const_cast<void*>(arguments.sources[0]);
    return arguments;
  }
  static float last_of(const ReduceArguments& arguments) {
    std::vector<float> result(arguments.count);
    cuda_double_read(result.data(), arguments.destinations[0], arguments.count * sizeof(float));
    return result.back();
  }
  void TearDown() override {
    for (const CUdeviceptr memory : memory_) CUDA_OK(d.memory_free(memory));
    Program::TearDown();
  }

 private:
  std::vector<CUdeviceptr> memory_;
};

TEST_F(KernelsTest, AreLoadedOnceForEachContextAndUnloadedByTheLastHolder) {
  {
    std::array<std::shared_ptr<const Kernels>, 6> held;
    std::vector<std::thread> threads;
    for (auto& mine : held) threads.emplace_back([&] { mine = kernels(); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& each : held) EXPECT_EQ(each, held[0]);
    EXPECT_EQ(cuda_double_count("modules"), 1u);
    const auto other = kernels(1);
    EXPECT_NE(other, held[0]);
    EXPECT_EQ(cuda_double_count("modules"), 2u);
    CUcontext current = nullptr;
    CUDA_OK(d.context_current(&current));
    EXPECT_EQ(current, contexts[0]);
  }
  EXPECT_EQ(cuda_double_count("modules"), 0u);
}

TEST_F(KernelsTest, AreLoadedUsedAndUnloadedWhileAStreamCaptures) {
  for (const int mode : {kCaptureGlobal, kCaptureThreadLocal, kCaptureRelaxed}) {
    const CUstream on = stream();
    const ReduceArguments arguments = sum(1000);
    CUDA_OK(a.begin_capture(on, mode));
    const auto held = kernels();
    ASSERT_NE(held, nullptr);
    EXPECT_NE(kernels(1), nullptr);  // and let go
    const Status status = held->reduce(arguments, 8, on);
    EXPECT_TRUE(status) << status.message();
    CUgraph graph = nullptr;
    CUDA_OK(a.end_capture(on, &graph));
    EXPECT_EQ(last_of(arguments), 1);
    CUgraphExec graph_exec = nullptr;
    CUDA_OK(a.instantiate(&graph_exec, graph, 0));
    for (int launch = 0; launch < 3; ++launch) CUDA_OK(a.graph_launch(graph_exec, on));
    CUDA_OK(d.stream_synchronize(on));
    EXPECT_EQ(last_of(arguments), 4);
    CUDA_OK(a.graph_exec_destroy(graph_exec));
    CUDA_OK(a.graph_destroy(graph));
    CUDA_OK(d.stream_destroy(on));
    // The mode of the thread is as it was.
    int now = kCaptureRelaxed;
    CUDA_OK(d.capture_mode(&now));
    EXPECT_EQ(now, kCaptureGlobal);
    CUDA_OK(d.capture_mode(&now));
  }
}

TEST_F(KernelsTest, RefuseWhatAGpuWouldFaultOn) {
  const auto held = kernels();
  const CUstream on = stream();
  const auto refused = [&](const ReduceArguments& arguments, int ctas, const char* why) {
    const Status status = held->reduce(arguments, ctas, on);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(why));
  };
  const ReduceArguments good = sum(100);
  ReduceArguments bad = good;
  bad.sources[1] = static_cast<const std::byte*>(bad.sources[1]) + 2;
  refused(bad, 1, "source 1 at");
  refused(bad, 1, "is not aligned to its elements: a GPU reads float32 only at multiples of 4");
  bad = good;
  bad.destinations[0] = nullptr;
  refused(bad, 1, "destination 0 is NULL");
  bad = good;
  bad.source_count = kMaxSources + 1;
  refused(bad, 1, "source count 65 is not in 1 to 64");
  bad = good;
  bad.destination_count = 0;
  refused(bad, 1, "destination count 0 is not in 1 to 64");
  bad = good;
  bad.divisor = 0;
  refused(bad, 1, "divisor 0 is less than 1");
  bad = good;
  bad.op = ReduceOp::kBxor;
  refused(bad, 1, "op bxor works on integers only, but the type is float32");
  refused(good, 0, "the limit of CTAs 0");
  CopyArguments copy;
  EXPECT_THAT(held->copy(copy, 1, on).message(), HasSubstr("segment count 0 is not in 1 to 64"));
  copy.segment_count = 1;
  copy.segments[0].bytes = 8;
  EXPECT_THAT(held->copy(copy, 1, on).message(),
              HasSubstr("segment 0 of 8 bytes has a NULL pointer"));
  CUDA_OK(d.stream_destroy(on));
}

TEST_F(KernelsTest, ErrorsOfTheDriverSayWhichCallAndLeaveNothingLoaded) {
  constexpr CUresult kUnsupportedPtxVersion = 222;
  for (const CUresult failure : {kOutOfMemory, kUnsupportedPtxVersion}) {
    cuda_double_fail("cuModuleLoadData", 1, failure);
    const Status status = Kernels::of(d, contexts[0]).status();
    if (kernel_image().made_by == nullptr) {
      EXPECT_EQ(status.code(), Code::kInvalidUsage);
      EXPECT_THAT(status.message(), HasSubstr("this libcomm was built without nvcc"));
      continue;
    }
    EXPECT_EQ(status.code(), Code::kUnhandledCuda);
    EXPECT_THAT(status.message(), HasSubstr(kernel_image().made_by));
    EXPECT_THAT(status.message(), HasSubstr("cuModuleLoadData: "));
    EXPECT_EQ(status.message().find("update the driver") != std::string::npos,
              failure == kUnsupportedPtxVersion);
  }
  cuda_double_fail("cuModuleGetFunction", 5, kOutOfMemory);
  EXPECT_FALSE(Kernels::of(d, contexts[0]));
  EXPECT_EQ(cuda_double_count("modules"), 0u);

  const auto held = kernels();
  const CUstream on = stream();
  const ReduceArguments arguments = sum(10);
  cuda_double_fail("cuLaunchKernel", 1, kLaunchFailed);
  const Status status = held->reduce(arguments, 1, on);
  EXPECT_EQ(status.code(), Code::kUnhandledCuda);
  EXPECT_THAT(status.message(), HasSubstr("libcomm_reduce_float32: CUDA_ERROR_LAUNCH_FAILED"));
  CUDA_OK(d.stream_destroy(on));
}

}  // namespace
}  // namespace libcomm::cuda::test
