#include "src/reduce/types.h"

#include <gtest/gtest.h>

#include "src/reduce/reduce.h"
#include "tests/reduce/reference.h"

namespace libcomm {
namespace {

TEST(Types, KnowTheirSizeAndName) {
  const size_t sizes[kNumDataTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  const char* names[kNumDataTypes] = {"int8",    "uint8",    "int32",      "uint32",
                                      "int64",   "uint64",   "float16",    "float32",
                                      "float64", "bfloat16", "float8e4m3", "float8e5m2"};
  for (DataType type : reference::all_types()) {
    EXPECT_EQ(size_of(type), sizes[static_cast<int>(type)]);
    EXPECT_STREQ(name_of(type), names[static_cast<int>(type)]);
    EXPECT_EQ(is_integer(type), static_cast<int>(type) <= 5) << name_of(type);
  }
  EXPECT_STREQ(name_of(ReduceOp::kSum), "sum");
  EXPECT_STREQ(name_of(ReduceOp::kBxor), "bxor");
}

TEST(Types, BitwiseOperatorsAreForIntegersOnly) {
  for (DataType type : reference::all_types()) {
    for (ReduceOp op : {ReduceOp::kBand, ReduceOp::kBor, ReduceOp::kBxor}) {
      EXPECT_EQ(is_defined(op, type), is_integer(type)) << name_of(type);
    }
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMax, ReduceOp::kMin}) {
      EXPECT_TRUE(is_defined(op, type)) << name_of(type);
    }
  }
}

TEST(Types, ADefinedPairHasAKernelOnEveryInstructionSet) {
  reference::for_each_target([](const std::string& target) {
    for (DataType type : reference::all_types()) {
      for (int i = 0; i < kNumReduceOps; ++i) {
        const ReduceOp op = static_cast<ReduceOp>(i);
        EXPECT_EQ(find_reduce_kernel(type, op) != nullptr, is_defined(op, type))
            << target << " " << name_of(type) << " " << name_of(op);
      }
    }
  });
}

}  // namespace
}  // namespace libcomm
