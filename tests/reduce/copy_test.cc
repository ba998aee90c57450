#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "src/reduce/reduce.h"
#include "tests/reduce/reference.h"

namespace libcomm {
namespace {

TEST(Copy, EverySizeAndAlignmentIsExactWithAndWithoutStreaming) {
  std::vector<uint8_t> source(20000);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 31 + i / 256);
  reference::for_each_target([&](const std::string& target) {
    for (bool stream : {false, true}) {
      for (size_t bytes : {0, 1, 63, 64, 65, 1000, 4095, 4096, 4097, 4159, 4160, 10007, 16384}) {
        for (size_t offset : {0, 1, 16, 63}) {
          SCOPED_TRACE(target + " bytes " + std::to_string(bytes) + " offset " +
                       std::to_string(offset));
          std::vector<uint8_t> dst(bytes + offset + 64, 0xA5);
          copy_bytes(dst.data() + offset, source.data() + offset / 2, bytes, stream);
          EXPECT_TRUE(std::equal(dst.data() + offset, dst.data() + offset + bytes,
                                 source.data() + offset / 2));
          for (size_t i = 0; i < offset; ++i) EXPECT_EQ(dst[i], 0xA5);
          for (size_t i = bytes + offset; i < dst.size(); ++i) EXPECT_EQ(dst[i], 0xA5);
        }
      }
    }
  });
}

TEST(Copy, NothingNeedsNoPointers) {
  copy_bytes(nullptr, nullptr, 0, false);
  copy_bytes(nullptr, nullptr, 0, true);
}

}  // namespace
}  // namespace libcomm
