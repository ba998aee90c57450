// The kernels' step code on host memory, in launches of many shapes.
#include <gtest/gtest.h>

#include <vector>

#include "tests/device/kernel_cases.h"
#include "tests/reduce/reference.h"

namespace libcomm::cuda::test {
namespace {

class Step : public ::testing::TestWithParam<DataType> {};

std::string type_name(const ::testing::TestParamInfo<DataType>& info) {
  return name_of(info.param);
}

TEST_P(Step, ReducesToTheBitsOfTheHost) {
  check_reductions(*host_machine(1, 64), GetParam(), {1, 3, 16, 37, 67, 301});
  check_reductions(*host_machine(3, 96), GetParam(), {67, 2053});
}

TEST_P(Step, ReducesArraysThatTheGridGoesOverSeveralTimes) {
  check_reductions(*host_machine(2, 64), GetParam(), {40037 / size_of(GetParam())});
}

INSTANTIATE_TEST_SUITE_P(Types, Step, ::testing::ValuesIn(reference::all_types()), type_name);

TEST(Steps, TakeAsManyArraysAsALaunchHolds) { check_most_arrays(*host_machine(2, 64)); }

// Words that straddle are read whole: AddressSanitizer sees whether one lies beyond an array.
TEST(Steps, ReadNothingBeyondTheirArrays) {
  for (size_t count = 40; count < 90; ++count) {
    const std::vector<uint8_t> source(count, 3);
    std::vector<uint8_t> destination(count + 32);
    for (size_t offset = 0; offset < 16; ++offset) {
      ReduceArguments reduction;
      reduction.type = DataType::kUint8;
      reduction.count = count;
      reduction.source_count = 1;
      reduction.destination_count = 1;
      reduction.sources[0] = source.data();
      reduction.destinations[0] = destination.data() + offset;
      ASSERT_TRUE(host_machine(1, 64)->reduce(reduction));
      CopyArguments copy;
      copy.segment_count = 1;
      copy.segments[0] = {source.data(), destination.data() + offset, count};
      ASSERT_TRUE(host_machine(1, 64)->copy(copy));
    }
  }
}

TEST(Steps, RoundEveryValueOfASmallFloatAsTheHostDoes) {
  check_small_floats(*host_machine(2, 128));
}

TEST(Steps, TreatSpecialValuesAsTheHostDoes) { check_special_values(*host_machine(2, 128)); }

TEST(Steps, CopySegmentsOfAnyAlignment) {
  check_copies(*host_machine(1, 64));
  check_copies(*host_machine(7, 64));
  check_copies(*host_machine(150, 512));
}

}  // namespace
}  // namespace libcomm::cuda::test
