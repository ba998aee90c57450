// The registry of commMemAlloc segments.
#include "transports/shm/memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <thread>
#include <vector>

namespace libcomm {
namespace {

TEST(Segments, AreZeroedAndAlignedToPages) {
  Result<void*> memory = segment_alloc(10000);
  ASSERT_TRUE(memory) << memory.status().message();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(*memory) % 4096, 0u);
  const std::vector<char> zeros(10000);
  EXPECT_EQ(std::memcmp(*memory, zeros.data(), zeros.size()), 0);
  EXPECT_TRUE(segment_free(*memory).is_ok());
}

TEST(Segments, AreFoundOnlyByRangesThatLieWhollyInside) {
  char outside = 0;
  EXPECT_FALSE(find_segment(&outside, 1).has_value());
  Result<void*> first = segment_alloc(5000);
  Result<void*> second = segment_alloc(5000);
  ASSERT_TRUE(first && second);
  auto* begin = static_cast<char*>(*second);
  EXPECT_EQ(find_segment(begin, 5000)->offset, 0u);
  EXPECT_EQ(find_segment(begin + 4999, 1)->offset, 4999u);
  EXPECT_EQ(find_segment(begin + 5000, 0)->offset, 5000u);
  EXPECT_FALSE(find_segment(begin + 4999, 2).has_value());
  EXPECT_FALSE(find_segment(begin, SIZE_MAX).has_value());
  EXPECT_FALSE(find_segment(&outside, 1).has_value());
  EXPECT_NE(find_segment(*first, 1)->segment, find_segment(*second, 1)->segment);
  EXPECT_TRUE(segment_free(*first).is_ok());
  EXPECT_FALSE(find_segment(*first, 1).has_value());
  EXPECT_TRUE(segment_free(*second).is_ok());
}

TEST(Segments, ForgetTheirNumberWhenFreed) {
  Result<void*> memory = segment_alloc(100);
  ASSERT_TRUE(memory);
  const uint64_t segment = find_segment(*memory, 1)->segment;
  size_t bytes = 0;
  EXPECT_GE(segment_fd(segment, &bytes), 0);
  EXPECT_EQ(bytes, 100u);
  EXPECT_EQ(segment_address(segment, &bytes), *memory);
  const uint64_t freed = segments_freed();
  ASSERT_TRUE(segment_free(*memory).is_ok());
  EXPECT_EQ(segment_fd(segment, &bytes), -1);
  EXPECT_EQ(segment_address(segment, &bytes), nullptr);
  EXPECT_EQ(segments_freed(), freed + 1);
  Result<void*> next = segment_alloc(100);
  ASSERT_TRUE(next);
  EXPECT_GT(find_segment(*next, 1)->segment, segment);
  EXPECT_TRUE(segment_free(*next).is_ok());
}

TEST(Segments, OnlyTheStartOfALiveOneCanBeFreed) {
  Result<void*> memory = segment_alloc(100);
  ASSERT_TRUE(memory);
  EXPECT_EQ(segment_free(static_cast<char*>(*memory) + 1).code(), Code::kInvalidArgument);
  EXPECT_EQ(segment_free(nullptr).code(), Code::kInvalidArgument);
  EXPECT_TRUE(segment_free(*memory).is_ok());
  EXPECT_EQ(segment_free(*memory).code(), Code::kInvalidArgument);
}

TEST(Segments, RefuseSizesThatCannotBe) {
  EXPECT_EQ(segment_alloc(0).status().code(), Code::kInvalidArgument);
  const Status huge = segment_alloc(size_t{1} << 60).status();
  EXPECT_EQ(huge.code(), Code::kSystem);
  EXPECT_NE(huge.message().find("this machine has"), std::string::npos) << huge.message();
}

TEST(Segments, AFileSizeLimitIsNamed) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status refused = segment_alloc(1 << 20).status();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(refused.code(), Code::kSystem);
  EXPECT_NE(refused.message().find("ulimit -f"), std::string::npos) << refused.message();
}

TEST(Segments, ComeAndGoInManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 100; ++i) {
        const size_t bytes = static_cast<size_t>(1 + t + i);
        Result<void*> memory = segment_alloc(bytes);
        ASSERT_TRUE(memory);
        EXPECT_TRUE(find_segment(*memory, bytes).has_value());
        EXPECT_TRUE(segment_free(*memory).is_ok());
        EXPECT_FALSE(find_segment(&bytes, 1).has_value());
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace libcomm
