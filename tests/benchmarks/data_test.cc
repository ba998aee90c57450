// The data that benchmarks send and the results that they demand.
#include "benchmarks/harness/data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "benchmarks/harness/buffer.h"

namespace bench {
namespace {

constexpr size_t kCount = 1000;

std::vector<char> contents(const Pattern& pattern, const TypeInfo& type, size_t count = kCount,
                           uint64_t first = 0) {
  std::vector<char> bytes(count * type.size);
  pattern.fill(bytes.data(), count, first);
  return bytes;
}

uint64_t element(const std::vector<char>& bytes, const TypeInfo& type, size_t index) {
  uint64_t bits = 0;
  std::memcpy(&bits, bytes.data() + index * type.size, type.size);
  return bits;
}

uint64_t truncated(const TypeInfo& type, uint64_t bits) {
  return type.size == 8 ? bits : bits & ((uint64_t{1} << (8 * type.size)) - 1);
}

// One step of a reduction as a rank would do it: two elements in, one rounded to the type out.
uint64_t combined(const TypeInfo& type, Op op, uint64_t a, uint64_t b) {
  if (type.is_float) {
    const double x = decode_float(type, a);
    const double y = decode_float(type, b);
    if (op == Op::kProd) return encode_float(type, x * y);
    if (op == Op::kMax) return x > y ? a : b;
    if (op == Op::kMin) return x < y ? a : b;
    return encode_float(type, x + y);
  }
  const int unused = 64 - 8 * static_cast<int>(type.size);
  const bool less = type.is_signed
                        ? static_cast<int64_t>(a << unused) < static_cast<int64_t>(b << unused)
                        : a < b;
  switch (op) {
    case Op::kProd:
      return truncated(type, a * b);
    case Op::kMax:
      return less ? b : a;
    case Op::kMin:
      return less ? a : b;
    case Op::kBand:
      return a & b;
    case Op::kBor:
      return a | b;
    case Op::kBxor:
      return a ^ b;
    default:
      return truncated(type, a + b);
  }
}

uint64_t scaled(const TypeInfo& type, uint64_t bits, uint64_t scalar) {
  if (!type.is_float) return truncated(type, bits * scalar);
  return encode_float(type, decode_float(type, bits) * decode_float(type, scalar));
}

uint64_t divided(const TypeInfo& type, uint64_t bits, int n) {
  if (type.is_float) return encode_float(type, decode_float(type, bits) / n);
  const int unused = 64 - 8 * static_cast<int>(type.size);
  if (!type.is_signed) return bits / static_cast<uint64_t>(n);
  return truncated(type,
                   static_cast<uint64_t>((static_cast<int64_t>(bits << unused) >> unused) / n));
}

// All ranks' contributions to one reduction, as they would enter it.
struct Contributions {
  Contributions(const TypeInfo& type_in, Op op_in, int nranks)
      : type(type_in), op(op_in), data(type_in, op_in, nranks), ranks(nranks) {
    for (int rank = 0; rank < nranks; ++rank) {
      const std::vector<char> bytes = contents(data.input(rank), type);
      std::vector<uint64_t> elements(kCount);
      for (size_t i = 0; i < kCount; ++i) {
        elements[i] = element(bytes, type, i);
        if (op == Op::kMulSum) elements[i] = scaled(type, elements[i], data.scalar(rank));
      }
      by_rank.push_back(std::move(elements));
    }
  }

  std::vector<int> in_order() const {
    std::vector<int> order(by_rank.size());
    std::iota(order.begin(), order.end(), 0);
    return order;
  }

  // Reduced in the given order, each step rounded to the type.
  std::vector<char> reduced(const std::vector<int>& order) const {
    std::vector<char> result(kCount * type.size);
    for (size_t i = 0; i < kCount; ++i) {
      uint64_t bits = by_rank[static_cast<size_t>(order[0])][i];
      for (size_t k = 1; k < order.size(); ++k) {
        bits = combined(type, op, bits, by_rank[static_cast<size_t>(order[k])][i]);
      }
      if (op == Op::kAvg) bits = divided(type, bits, ranks);
      std::memcpy(result.data() + i * type.size, &bits, type.size);
    }
    return result;
  }

  const TypeInfo& type;
  Op op;
  ReduceData data;
  int ranks;
  std::vector<std::vector<uint64_t>> by_rank;
};

class EveryReduction : public testing::TestWithParam<commDataType_t> {
 protected:
  // Calls fn for each operator of the type and several numbers of ranks.
  template <typename F>
  void for_each(const std::vector<int>& ranks, F fn) {
    const TypeInfo& type = type_info(GetParam());
    for (int op = 0; op <= static_cast<int>(Op::kBxor); ++op) {
      if (!is_defined(static_cast<Op>(op), type)) continue;
      for (const int nranks : ranks) {
        SCOPED_TRACE(std::string(type.name) + " " + name_of(static_cast<Op>(op)) + " on " +
                     std::to_string(nranks) + " ranks");
        fn(type, static_cast<Op>(op), nranks);
        if (HasFatalFailure()) return;
      }
    }
  }
};

TEST_P(EveryReduction, HasOneRightResultInAnyOrder) {
  for_each({1, 2, 3, 5, 7, 8, 9, 20}, [](const TypeInfo& type, Op op, int nranks) {
    const Contributions contributions(type, op, nranks);
    const Pattern result = contributions.data.result();
    std::vector<int> order = contributions.in_order();
    std::mt19937 random(7);
    for (int round = 0; round < 3; ++round) {
      const std::vector<char> got = contributions.reduced(order);
      const Mismatches wrong = result.check(got.data(), kCount, 0);
      ASSERT_EQ(wrong.count, 0u) << "round " << round << ": element " << wrong.index << " is "
                                 << wrong.got << ", expected " << wrong.expected;
      std::shuffle(order.begin(), order.end(), random);
    }
  });
}

TEST_P(EveryReduction, ShowsARankThatIsMissingOrCountedTwice) {
  for_each({2, 3, 8}, [](const TypeInfo& type, Op op, int nranks) {
    const Contributions contributions(type, op, nranks);
    const Pattern result = contributions.data.result();
    for (int culprit = 0; culprit < nranks; ++culprit) {
      std::vector<int> missing = contributions.in_order();
      missing.erase(missing.begin() + culprit);
      const std::vector<char> without = contributions.reduced(missing);
      EXPECT_GT(result.check(without.data(), kCount, 0).count, 0u) << "rank " << culprit;
      // A repeated rank cannot show where the operator is idempotent.
      if (op == Op::kMax || op == Op::kMin || op == Op::kBand || op == Op::kBor) continue;
      std::vector<int> twice = contributions.in_order();
      twice.push_back(culprit);
      const std::vector<char> with = contributions.reduced(twice);
      EXPECT_GT(result.check(with.data(), kCount, 0).count, 0u) << "rank " << culprit;
    }
  });
}

TEST_P(EveryReduction, ShowsAShiftedResult) {
  for_each({4}, [](const TypeInfo& type, Op op, int nranks) {
    const Pattern result = ReduceData(type, op, nranks).result();
    for (const uint64_t shift : {1, 64, 1024, 4096}) {
      const std::vector<char> moved = contents(result, type, kCount, shift);
      EXPECT_GT(result.check(moved.data(), kCount, 0).count, 0u) << "by " << shift;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Types, EveryReduction,
                         testing::Values(commInt8, commUint8, commInt32, commUint32, commInt64,
                                         commUint64, commFloat16, commFloat32, commFloat64,
                                         commBfloat16, commFloat8e4m3, commFloat8e5m2),
                         [](const auto& test) { return std::string(type_info(test.param).name); });

TEST(Pattern, TellsRanksAndPositionsApartWhenDataIsOnlyMoved) {
  for (const TypeInfo& type : all_types()) {
    SCOPED_TRACE(type.name);
    const Pattern own = Pattern::unique(type, 3);
    const std::vector<char> bytes = contents(own, type);
    EXPECT_EQ(own.check(bytes.data(), kCount, 0).count, 0u);
    EXPECT_GT(own.check(bytes.data(), kCount, 1).count, kCount / 2);
    EXPECT_GT(own.check(bytes.data(), kCount, 256).count, kCount / 2);
    EXPECT_GT(Pattern::unique(type, 2).check(bytes.data(), kCount, 0).count, kCount / 2);
  }
}

TEST(Pattern, FindsASingleFlippedBitAndSaysWhere) {
  for (const TypeInfo& type : all_types()) {
    for (const Pattern& pattern :
         {Pattern::unique(type, 0), ReduceData(type, Op::kSum, 2).result()}) {
      std::vector<char> bytes = contents(pattern, type);
      bytes[417 * type.size] ^= 1;
      const Mismatches wrong = pattern.check(bytes.data(), kCount, 0);
      EXPECT_EQ(wrong.count, 1u) << type.name;
      EXPECT_EQ(wrong.index, 417u);
      EXPECT_EQ(wrong.expected, pattern.bits(417));
      EXPECT_EQ(wrong.got, pattern.bits(417) ^ 1);
    }
  }
}

TEST(Pattern, AddsUpMismatchesOfPiecesAndKeepsTheFirstPlace) {
  Mismatches total;
  total.add({}, 0);
  total.add({2, 5, 1, 2}, 100);
  total.add({3, 0, 7, 8}, 200);
  EXPECT_EQ(total.count, 5u);
  EXPECT_EQ(total.index, 105u);
  EXPECT_EQ(total.got, 1u);
}

TEST(Tolerance, IsZeroWhereTheDataMakesResultsExact) {
  for (const TypeInfo& type : all_types()) {
    for (int op = 0; op <= static_cast<int>(Op::kBxor); ++op) {
      for (const int nranks : {1, 2, 3, 4, 6, 8}) {
        const double tolerance = ReduceData(type, static_cast<Op>(op), nranks).tolerance();
        const bool inexact =
            type.is_float && static_cast<Op>(op) == Op::kAvg && (nranks == 3 || nranks == 6);
        EXPECT_EQ(tolerance, inexact ? 1 : 0) << type.name << " " << op << " " << nranks;
      }
    }
  }
}

TEST(Tolerance, AcceptsOneUnitInTheLastPlaceOfAnAverageOverThreeAndNotTwo) {
  const TypeInfo& type = type_info(commFloat32);
  const Pattern average = ReduceData(type, Op::kAvg, 3).result();
  std::vector<char> bytes = contents(average, type);
  size_t index = 0;  // of a value that has neighbours of the same exponent
  while ((average.bits(index) & 0x7) != 0x4) ++index;
  ASSERT_LT(index, kCount);
  bytes[index * 4] = static_cast<char>(bytes[index * 4] + 1);
  EXPECT_EQ(average.check(bytes.data(), kCount, 0).count, 0u);
  bytes[index * 4] = static_cast<char>(bytes[index * 4] + 1);
  EXPECT_EQ(average.check(bytes.data(), kCount, 0).count, 1u);
}

TEST(IntegerAverages, NeverWrapOnTheWay) {
  for (const commDataType_t id : {commInt8, commUint8, commInt64, commUint64}) {
    const TypeInfo& type = type_info(id);
    for (const int nranks : {2, 3, 300}) {
      const ReduceData data(type, Op::kAvg, nranks);
      std::vector<long double> magnitudes(20, 0);
      for (int rank = 0; rank < nranks; ++rank) {
        const Pattern input = data.input(rank);
        const int unused = 64 - 8 * static_cast<int>(type.size);
        for (size_t i = 0; i < magnitudes.size(); ++i) {
          const uint64_t bits = input.bits(i);
          magnitudes[i] += type.is_signed ? std::fabs(static_cast<long double>(
                                                static_cast<int64_t>(bits << unused) >> unused))
                                          : static_cast<long double>(bits);
        }
      }
      const long double largest = *std::max_element(magnitudes.begin(), magnitudes.end());
      const int value_bits = static_cast<int>(8 * type.size) - (type.is_signed ? 1 : 0);
      EXPECT_LE(largest, std::ldexp(1.0L, value_bits) - 1) << type.name << " " << nranks;
    }
  }
}

TEST(Buffer, SeesAByteWrittenJustOutsideThePartInUse) {
  Buffer buffer(10000, Buffer::malloc_source());
  ASSERT_NE(buffer.data(), nullptr);
  for (const size_t used : {size_t{0}, size_t{1}, size_t{4097}, size_t{10000}}) {
    buffer.poison(used);
    EXPECT_EQ(buffer.damaged_bytes(used), 0u);
    std::memset(buffer.data(), 0, used);
    EXPECT_EQ(buffer.damaged_bytes(used), 0u);
    buffer.data()[used] ^= 1;
    EXPECT_EQ(buffer.damaged_bytes(used), 1u);
    buffer.data()[-1] ^= 1;
    EXPECT_EQ(buffer.damaged_bytes(used), 2u);
  }
}

TEST(Buffer, IsPageAligned) {
  const Buffer buffer(5, Buffer::malloc_source());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
}

}  // namespace
}  // namespace bench
