// The rules at the edges of the number formats: rounding, overflow, NaN, signed zeros, wrapping.
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "src/reduce/reduce.h"
#include "tests/reduce/reference.h"

namespace libcomm {
namespace {

using reference::Bytes;

constexpr DataType kSmallFloats[] = {DataType::kFloat16, DataType::kBfloat16, DataType::kFloat8e4m3,
                                     DataType::kFloat8e5m2};
constexpr DataType kFloats[] = {DataType::kFloat16,    DataType::kBfloat16, DataType::kFloat8e4m3,
                                DataType::kFloat8e5m2, DataType::kFloat32,  DataType::kFloat64};

// Reduces whole arrays given as bits.
std::vector<uint64_t> run(DataType type, ReduceOp op,
                          const std::vector<std::vector<uint64_t>>& sources, int divisor = 1) {
  const size_t count = sources[0].size();
  std::vector<Bytes> arrays;
  std::vector<const void*> pointers;
  for (const auto& source : sources) {
    arrays.emplace_back(count * size_of(type));
    for (size_t i = 0; i < count; ++i) reference::store(arrays.back().data(), i, type, source[i]);
  }
  for (const Bytes& array : arrays) pointers.push_back(array.data());
  Bytes dst(count * size_of(type));
  find_reduce_kernel(type, op)({.dst = dst.data(),
                                .sources = pointers.data(),
                                .source_count = static_cast<int>(pointers.size()),
                                .count = count,
                                .divisor = divisor});
  std::vector<uint64_t> result(count);
  for (size_t i = 0; i < count; ++i) result[i] = reference::load(dst.data(), i, type);
  return result;
}

// One element, in every lane of a vector and of its tail: all must agree.
uint64_t run_one(DataType type, ReduceOp op, const std::vector<uint64_t>& column, int divisor = 1) {
  std::vector<std::vector<uint64_t>> sources;
  for (uint64_t bits : column) sources.emplace_back(67, bits);
  const std::vector<uint64_t> result = run(type, op, sources, divisor);
  for (uint64_t bits : result) EXPECT_EQ(bits, result[0]) << name_of(type) << " " << name_of(op);
  return result[0];
}

// The value of a reduction of values.
double value(DataType type, ReduceOp op, const std::vector<double>& column, int divisor = 1) {
  std::vector<uint64_t> bits;
  for (double v : column) bits.push_back(reference::encode(type, v));
  return reference::decode(type, run_one(type, op, bits, divisor));
}

std::vector<uint64_t> all_patterns(DataType type) {
  std::vector<uint64_t> patterns(size_t{1} << (8 * size_of(type)));
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = i;
  return patterns;
}

TEST(Rounding, EveryPatternOfASmallFloatSurvivesAddingZero) {
  reference::for_each_target([](const std::string& target) {
    for (DataType type : kSmallFloats) {
      SCOPED_TRACE(target + " " + name_of(type));
      const std::vector<uint64_t> patterns = all_patterns(type);
      const uint64_t minus_zero = uint64_t{1} << (8 * size_of(type) - 1);
      const std::vector<uint64_t> plus(patterns.size(), 0);
      const std::vector<uint64_t> minus(patterns.size(), minus_zero);
      const auto with_plus = run(type, ReduceOp::kSum, {patterns, plus});
      const auto with_minus = run(type, ReduceOp::kSum, {patterns, minus});
      for (uint64_t pattern : patterns) {
        uint64_t want = pattern;
        if (reference::is_nan(type, pattern)) want = reference::canonical_nan(type);
        ASSERT_EQ(with_minus[pattern], want);
        ASSERT_EQ(with_plus[pattern], pattern == minus_zero ? 0 : want);
      }
    }
  });
}

TEST(Rounding, EveryPatternOfASmallFloatIsCopiedBitByBit) {
  reference::for_each_target([](const std::string& target) {
    for (DataType type : kSmallFloats) {
      SCOPED_TRACE(target + " " + name_of(type));
      EXPECT_EQ(run(type, ReduceOp::kSum, {all_patterns(type)}), all_patterns(type));
    }
  });
}

TEST(Rounding, EveryPairOf8BitFloatsMatchesPlainCode) {
  for (DataType type : {DataType::kFloat8e4m3, DataType::kFloat8e5m2}) {
    std::vector<uint64_t> a;
    std::vector<uint64_t> b;
    for (uint64_t i = 0; i < 65536; ++i) {
      a.push_back(i / 256);
      b.push_back(i % 256);
    }
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMax, ReduceOp::kMin}) {
      std::vector<uint64_t> want;
      for (size_t i = 0; i < a.size(); ++i) {
        want.push_back(reference::reduce(type, op, {a[i], b[i]}, 1));
      }
      reference::for_each_target([&](const std::string& target) {
        EXPECT_EQ(run(type, op, {a, b}), want) << target << " " << name_of(type) << name_of(op);
      });
    }
  }
}

// Partners that put the exact result at and around half way between two neighbours, in the normal
// and in the subnormal range.
TEST(Rounding, HalfWayCasesOf16BitFloatsGoToEven) {
  for (DataType type : {DataType::kFloat16, DataType::kBfloat16}) {
    const std::vector<uint64_t> patterns = all_patterns(type);
    for (double factor : {0.5, 0.75, 1.5, 0.24998, 3.0}) {
      const uint64_t partner = reference::encode(type, factor);
      const std::vector<uint64_t> partners(patterns.size(), partner);
      for (ReduceOp op : {ReduceOp::kProd, ReduceOp::kSum}) {
        std::vector<uint64_t> want;
        for (uint64_t pattern : patterns) {
          want.push_back(reference::reduce(type, op, {pattern, partner}, 1));
        }
        reference::for_each_target([&](const std::string& target) {
          EXPECT_EQ(run(type, op, {patterns, partners}), want)
              << target << " " << name_of(type) << " " << name_of(op) << " " << factor;
        });
      }
    }
  }
}

TEST(Rounding, DivisionsOf16BitFloatsRoundOnce) {
  for (DataType type : {DataType::kFloat16, DataType::kBfloat16}) {
    const std::vector<uint64_t> patterns = all_patterns(type);
    for (int divisor : {2, 3, 1024}) {
      std::vector<uint64_t> want;
      for (uint64_t pattern : patterns) {
        want.push_back(reference::reduce(type, ReduceOp::kSum, {pattern, pattern}, divisor));
      }
      reference::for_each_target([&](const std::string& target) {
        EXPECT_EQ(run(type, ReduceOp::kSum, {patterns, patterns}, divisor), want)
            << target << " " << name_of(type) << " / " << divisor;
      });
    }
  }
}

TEST(Rounding, SeveralSourcesOfSmallFloatsAreRoundedOnce) {
  reference::for_each_target([](const std::string& target) {
    SCOPED_TRACE(target);
    // Rounding after each addition would lose both ones.
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {2048, 1, 1}), 2050);
    EXPECT_EQ(value(DataType::kBfloat16, ReduceOp::kSum, {256, 1, 1}), 258);
    EXPECT_EQ(value(DataType::kFloat8e4m3, ReduceOp::kSum, {16, 1, 1}), 18);
    EXPECT_EQ(value(DataType::kFloat8e5m2, ReduceOp::kSum, {8, 1, 1}), 10);
    // An intermediate sum beyond the type's range does not matter.
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {60000, 60000, -60000}), 60000);
    EXPECT_EQ(value(DataType::kFloat8e4m3, ReduceOp::kSum, {448, 448, -448}), 448);
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {60000, 60000}, 2), 60000);
    // The order is from first to last.
    EXPECT_EQ(value(DataType::kFloat32, ReduceOp::kSum, {1e30, 1, -1e30}), 0);
    EXPECT_NE(value(DataType::kFloat32, ReduceOp::kSum, {1e30, -1e30, 1}), 0);
  });
}

TEST(Rounding, OverflowGivesInfinityOrForE4m3Nan) {
  const double inf = std::numeric_limits<double>::infinity();
  reference::for_each_target([&](const std::string& target) {
    SCOPED_TRACE(target);
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {65504, 15.9}), 65504);
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {65504, 16}), inf);
    EXPECT_EQ(value(DataType::kFloat16, ReduceOp::kSum, {-65504, -16}), -inf);
    EXPECT_EQ(value(DataType::kFloat8e5m2, ReduceOp::kSum, {57344, 3584}), 57344);
    EXPECT_EQ(value(DataType::kFloat8e5m2, ReduceOp::kSum, {57344, 4096}), inf);
    EXPECT_EQ(value(DataType::kFloat8e5m2, ReduceOp::kProd, {-57344, 57344}), -inf);
    EXPECT_EQ(value(DataType::kFloat8e4m3, ReduceOp::kSum, {448, 16}), 448);
    EXPECT_EQ(value(DataType::kFloat8e4m3, ReduceOp::kSum, {-448, -16}), -448);
    for (const std::vector<double>& column : {std::vector<double>{448, 18}, {-448, -18}}) {
      std::vector<uint64_t> bits;
      for (double v : column) bits.push_back(reference::encode(DataType::kFloat8e4m3, v));
      EXPECT_EQ(run_one(DataType::kFloat8e4m3, ReduceOp::kSum, bits), 0x7Fu);
    }
    const uint64_t max_bf16 = 0x7F7F;
    EXPECT_EQ(run_one(DataType::kBfloat16, ReduceOp::kSum, {max_bf16, max_bf16}), 0x7F80u);
    EXPECT_EQ(run_one(DataType::kFloat32, ReduceOp::kSum, {0x7F7FFFFF, 0x7F7FFFFF}), 0x7F800000u);
    // Half way to the next power of two, then just below it.
    EXPECT_EQ(run_one(DataType::kBfloat16, ReduceOp::kSum, {max_bf16, 0x7B00}), 0x7F80u);
    EXPECT_EQ(run_one(DataType::kBfloat16, ReduceOp::kSum, {max_bf16, 0x7AFF}), max_bf16);
  });
}

TEST(Rounding, SubnormalsAreNotFlushed) {
  reference::for_each_target([](const std::string& target) {
    SCOPED_TRACE(target);
    for (DataType type : kFloats) {
      EXPECT_EQ(run_one(type, ReduceOp::kSum, {1, 1}), 2u) << name_of(type);
      EXPECT_EQ(run_one(type, ReduceOp::kMax, {1, 0}), 1u) << name_of(type);
      EXPECT_EQ(run_one(type, ReduceOp::kSum, {2, 2}, 2), 2u) << name_of(type);
    }
  });
}

TEST(Rounding, ANanInEitherOperandGivesTheOneNan) {
  reference::for_each_target([](const std::string& target) {
    for (DataType type : kFloats) {
      const uint64_t one = reference::encode(type, 1);
      const uint64_t sign = uint64_t{1} << (8 * size_of(type) - 1);
      const uint64_t nan = reference::canonical_nan(type);
      for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMax, ReduceOp::kMin}) {
        SCOPED_TRACE(target + " " + name_of(type) + " " + name_of(op));
        // All ones is a NaN with a payload and a sign in every type.
        for (uint64_t bad : {sign - 1, 2 * sign - 1, nan, sign | nan}) {
          EXPECT_EQ(run_one(type, op, {bad, one}), nan);
          EXPECT_EQ(run_one(type, op, {one, bad}), nan);
          EXPECT_EQ(run_one(type, op, {bad, bad}), nan);
          EXPECT_EQ(run_one(type, op, {one, one, bad}), nan);
          EXPECT_EQ(run_one(type, op, {bad, one, one, one, one}, 5), nan);
        }
      }
      EXPECT_EQ(run_one(type, ReduceOp::kSum, {sign - 1}, 3), nan);
    }
    for (DataType type : kFloats) {
      if (type == DataType::kFloat8e4m3) continue;  // has no infinity
      const double inf = std::numeric_limits<double>::infinity();
      const uint64_t plus = reference::encode(type, inf);
      const uint64_t minus = reference::encode(type, -inf);
      SCOPED_TRACE(target + " " + name_of(type));
      EXPECT_EQ(run_one(type, ReduceOp::kSum, {plus, minus}), reference::canonical_nan(type));
      EXPECT_EQ(run_one(type, ReduceOp::kProd, {plus, 0}), reference::canonical_nan(type));
      EXPECT_EQ(run_one(type, ReduceOp::kMax, {plus, minus}), plus);
      EXPECT_EQ(run_one(type, ReduceOp::kMin, {plus, minus}), minus);
    }
  });
}

TEST(Rounding, PlusZeroIsGreaterThanMinusZero) {
  reference::for_each_target([](const std::string& target) {
    for (DataType type : kFloats) {
      SCOPED_TRACE(target + " " + name_of(type));
      const uint64_t minus = uint64_t{1} << (8 * size_of(type) - 1);
      EXPECT_EQ(run_one(type, ReduceOp::kMax, {0, minus}), 0u);
      EXPECT_EQ(run_one(type, ReduceOp::kMax, {minus, 0}), 0u);
      EXPECT_EQ(run_one(type, ReduceOp::kMax, {minus, minus}), minus);
      EXPECT_EQ(run_one(type, ReduceOp::kMin, {0, minus}), minus);
      EXPECT_EQ(run_one(type, ReduceOp::kMin, {minus, 0}), minus);
      EXPECT_EQ(run_one(type, ReduceOp::kMin, {0, 0}), 0u);
    }
  });
}

TEST(Integers, SumsAndProductsWrap) {
  reference::for_each_target([](const std::string& target) {
    SCOPED_TRACE(target);
    EXPECT_EQ(run_one(DataType::kInt8, ReduceOp::kSum, {0x7F, 1}), 0x80u);
    EXPECT_EQ(run_one(DataType::kInt8, ReduceOp::kProd, {0x80, 0xFF}), 0x80u);
    EXPECT_EQ(run_one(DataType::kUint8, ReduceOp::kProd, {0xFF, 0xFF}), 0x01u);
    EXPECT_EQ(run_one(DataType::kInt32, ReduceOp::kSum, {0x7FFFFFFF, 1}), 0x80000000u);
    EXPECT_EQ(run_one(DataType::kUint32, ReduceOp::kSum, {0, 0xFFFFFFFF, 2}), 1u);
    EXPECT_EQ(run_one(DataType::kInt64, ReduceOp::kProd, {1ull << 63, 3}), 1ull << 63);
    EXPECT_EQ(run_one(DataType::kUint64, ReduceOp::kSum, {~0ull, 2}), 1u);
  });
}

TEST(Integers, ExtremaKnowTheSign) {
  reference::for_each_target([](const std::string& target) {
    SCOPED_TRACE(target);
    EXPECT_EQ(run_one(DataType::kInt8, ReduceOp::kMax, {0x80, 0x7F}), 0x7Fu);
    EXPECT_EQ(run_one(DataType::kUint8, ReduceOp::kMax, {0x80, 0x7F}), 0x80u);
    EXPECT_EQ(run_one(DataType::kInt32, ReduceOp::kMin, {0x80000000, 1}), 0x80000000u);
    EXPECT_EQ(run_one(DataType::kUint32, ReduceOp::kMin, {0x80000000, 1}), 1u);
    EXPECT_EQ(run_one(DataType::kInt64, ReduceOp::kMin, {1ull << 63, 1}), 1ull << 63);
    EXPECT_EQ(run_one(DataType::kUint64, ReduceOp::kMin, {1ull << 63, 1}), 1u);
  });
}

TEST(Integers, DivisionTruncatesTowardsZero) {
  reference::for_each_target([](const std::string& target) {
    SCOPED_TRACE(target);
    EXPECT_EQ(run_one(DataType::kInt32, ReduceOp::kSum, {static_cast<uint32_t>(-5), 0}, 2),
              static_cast<uint32_t>(-2));
    EXPECT_EQ(run_one(DataType::kInt8, ReduceOp::kSum, {0x80}, 3), static_cast<uint8_t>(-42));
    EXPECT_EQ(run_one(DataType::kInt8, ReduceOp::kSum, {100, 20}, 1000), 0u);
    EXPECT_EQ(run_one(DataType::kUint8, ReduceOp::kSum, {0xFF}, 2), 127u);
    EXPECT_EQ(run_one(DataType::kUint64, ReduceOp::kSum, {~0ull}, 2), ~0ull / 2);
    EXPECT_EQ(run_one(DataType::kInt64, ReduceOp::kSum, {~0ull, ~0ull}, 2), ~0ull);
  });
}

}  // namespace
}  // namespace libcomm
