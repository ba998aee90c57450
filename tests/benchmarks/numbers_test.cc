// The checker's own conversions of narrow floats, against the formats' definitions.
#include "benchmarks/harness/numbers.h"

#include <gtest/gtest.h>

#include <cmath>

namespace bench {
namespace {

const commDataType_t kNarrow[] = {commFloat16, commBfloat16, commFloat8e4m3, commFloat8e5m2};

uint64_t sign_bit(const TypeInfo& type) { return uint64_t{1} << (8 * type.size - 1); }

TEST(NarrowFloats, KeepTheirBitsThroughDoubleAndBack) {
  for (const commDataType_t id : kNarrow) {
    const TypeInfo& type = type_info(id);
    for (uint64_t bits = 0; bits < 2 * sign_bit(type); ++bits) {
      const double value = decode_float(type, bits);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(decode_float(type, encode_float(type, value))));
      } else {
        ASSERT_EQ(encode_float(type, value), bits) << type.name;
      }
    }
  }
}

TEST(NarrowFloats, GrowWithTheirBits) {
  for (const commDataType_t id : kNarrow) {
    const TypeInfo& type = type_info(id);
    for (uint64_t bits = 1; bits < sign_bit(type); ++bits) {
      const double value = decode_float(type, bits);
      if (std::isnan(value)) break;
      ASSERT_GT(value, decode_float(type, bits - 1)) << type.name << " " << bits;
      ASSERT_EQ(decode_float(type, bits | sign_bit(type)), -value);
    }
  }
}

TEST(NarrowFloats, RoundToNearestAndTiesToEven) {
  for (const commDataType_t id : kNarrow) {
    const TypeInfo& type = type_info(id);
    for (uint64_t low = 0; std::isfinite(decode_float(type, low + 1)); ++low) {
      const double below = decode_float(type, low);
      const double above = decode_float(type, low + 1);
      const double middle = (below + above) / 2;
      const uint64_t even = low % 2 == 0 ? low : low + 1;
      ASSERT_EQ(encode_float(type, middle), even) << type.name << " " << low;
      ASSERT_EQ(encode_float(type, std::nextafter(middle, below)), low);
      ASSERT_EQ(encode_float(type, std::nextafter(middle, above)), low + 1);
      ASSERT_EQ(encode_float(type, -middle), even | sign_bit(type));
    }
  }
}

TEST(NarrowFloats, HaveTheStandardsLandmarks) {
  const TypeInfo& half = type_info(commFloat16);
  EXPECT_EQ(decode_float(half, 0x3c00), 1.0);
  EXPECT_EQ(decode_float(half, 0x7bff), 65504.0);
  EXPECT_EQ(decode_float(half, 0x0001), 0x1p-24);
  EXPECT_TRUE(std::isinf(decode_float(half, 0x7c00)));
  EXPECT_EQ(encode_float(half, 65519.0), 0x7bffu);
  EXPECT_EQ(encode_float(half, 65520.0), 0x7c00u);
  EXPECT_EQ(encode_float(half, -1e300), 0xfc00u);

  const TypeInfo& bf16 = type_info(commBfloat16);
  EXPECT_EQ(decode_float(bf16, 0x3f80), 1.0);
  EXPECT_EQ(decode_float(bf16, 0xc049), -3.140625);
  EXPECT_EQ(encode_float(bf16, 3.14159265), 0x4049u);

  const TypeInfo& e4m3 = type_info(commFloat8e4m3);
  EXPECT_EQ(decode_float(e4m3, 0x38), 1.0);
  EXPECT_EQ(decode_float(e4m3, 0x7e), 448.0);
  EXPECT_TRUE(std::isnan(decode_float(e4m3, 0x7f)));
  EXPECT_EQ(decode_float(e4m3, 0x01), 0x1p-9);
  EXPECT_EQ(encode_float(e4m3, 464.0), 0x7eu);
  EXPECT_EQ(encode_float(e4m3, 464.1), 0x7fu);

  const TypeInfo& e5m2 = type_info(commFloat8e5m2);
  EXPECT_EQ(decode_float(e5m2, 0x3c), 1.0);
  EXPECT_EQ(decode_float(e5m2, 0x7b), 57344.0);
  EXPECT_TRUE(std::isinf(decode_float(e5m2, 0x7c)));
  EXPECT_TRUE(std::isnan(decode_float(e5m2, 0x7d)));
  EXPECT_EQ(decode_float(e5m2, 0x01), 0x1p-16);
}

TEST(UnitInLastPlace, IsTheSpacingOfTheTypesValues) {
  EXPECT_EQ(unit_in_last_place(type_info(commFloat16), 1.0), 0x1p-10);
  EXPECT_EQ(unit_in_last_place(type_info(commFloat16), 0.0), 0x1p-24);
  EXPECT_EQ(unit_in_last_place(type_info(commFloat8e4m3), -300.0), 32.0);
  EXPECT_EQ(unit_in_last_place(type_info(commFloat64), 1.0), 0x1p-52);
}

TEST(TypeNames, AreNcclTestsNamesInTheOrderOfTheTypes) {
  const char* const names[] = {"int8", "uint8", "int32",  "uint32",   "int64",  "uint64",
                               "half", "float", "double", "bfloat16", "f8e4m3", "f8e5m2"};
  ASSERT_EQ(all_types().size(), size_t{commNumTypes});
  for (int i = 0; i < commNumTypes; ++i) {
    const TypeInfo& type = all_types()[static_cast<size_t>(i)];
    EXPECT_EQ(type.type, i);
    EXPECT_STREQ(type.name, names[i]);
    EXPECT_EQ(find_type(names[i]), type.type);
  }
  EXPECT_EQ(find_type("fp16"), commFloat16);
  EXPECT_EQ(find_type("float128"), std::nullopt);
}

}  // namespace
}  // namespace bench
