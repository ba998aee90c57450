// What launches look like: seen by kernels that stand in the place of the library's own.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "src/device/kernels.h"
#include "src/device/kernels/packs.h"
#include "src/device/kernels/table.h"
#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

struct Launch {
  unsigned grid = 0;
  unsigned block = 0;
};
Launch g_launch;

constexpr size_t kTile = size_t{kMaxThreads} * kPacksAtOnce * kPackBytes;

class Grids : public Program {
 protected:
  void SetUp() override {
    cuda_double_set("multiprocessors", 5);
    const auto look = [](const void*, unsigned grid, unsigned block) { g_launch = {grid, block}; };
    cuda_double_register_kernel("libcomm_reduce_float32", sizeof(ReduceArguments), look);
    cuda_double_register_kernel("libcomm_copy", sizeof(CopyArguments), look);
    Program::SetUp();
    auto loaded = Kernels::of(d, contexts[0]);
    ASSERT_TRUE(loaded) << loaded.status().message();
    kernels_ = *loaded;
    stream_ = stream();
  }
  void TearDown() override {
    CUDA_OK(d.stream_destroy(stream_));
    kernels_.reset();
    Program::TearDown();
  }
  Launch seen(const Status& status) {
    EXPECT_TRUE(status) << status.message();
    CUDA_OK(d.stream_synchronize(stream_));
    return std::exchange(g_launch, {});
  }
  Launch reduce(size_t bytes, int max_ctas) {
    ReduceArguments arguments;
    arguments.count = bytes / sizeof(float);
    arguments.source_count = arguments.destination_count = 1;
    arguments.sources[0] = arguments.destinations[0] = &arguments;
    return seen(kernels_->reduce(arguments, max_ctas, stream_));
  }
  Launch copy(const std::vector<size_t>& segments, int max_ctas) {
    CopyArguments arguments;
    for (const size_t bytes : segments)
      arguments.segments[arguments.segment_count++] = {&arguments, &arguments, bytes};
    return seen(kernels_->copy(arguments, max_ctas, stream_));
  }

  std::shared_ptr<const Kernels> kernels_;
  CUstream stream_ = nullptr;
};

TEST_F(Grids, OfReductionsGrowWithTheBytesUpToTheLimitAndTheGpu) {
  EXPECT_EQ(kernels_->useful_ctas(), 10);
  EXPECT_EQ(reduce(0, 100).grid, 0u);
  EXPECT_EQ(reduce(8, 100).grid, 1u);
  EXPECT_EQ(reduce(8, 100).block, 64u);
  EXPECT_EQ(reduce(kTile, 100).grid, 1u);
  EXPECT_EQ(reduce(kTile, 100).block, kMaxThreads);
  EXPECT_EQ(reduce(3 * kTile, 100).grid, 3u);
  EXPECT_EQ(reduce(100 * kTile, 100).grid, 10u);
  EXPECT_EQ(reduce(100 * kTile, 7).grid, 7u);
  EXPECT_EQ(reduce(100 * kTile, 1).grid, 1u);
}

TEST_F(Grids, OfCopiesHaveABlockForEachTileOfASegment) {
  EXPECT_EQ(copy({0, 0}, 100).grid, 0u);
  EXPECT_EQ(copy({8, 0, 8, 8}, 100).grid, 3u);
  EXPECT_EQ(copy({8, 0, 8, 8}, 100).block, 64u);
  EXPECT_EQ(copy({3 * kTile, 8, kTile + 1}, 100).grid, 6u);
  EXPECT_EQ(copy({3 * kTile, 8, kTile + 1}, 100).block, kMaxThreads);
  EXPECT_EQ(copy({100 * kTile}, 100).grid, 10u);
  EXPECT_EQ(copy({3 * kTile, 8, kTile + 1}, 2).grid, 2u);
}

}  // namespace
}  // namespace libcomm::cuda::test
