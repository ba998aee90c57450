#include "benchmarks/harness/numbers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace bench {
namespace {

// clang-format off
constexpr std::array<TypeInfo, commNumTypes> kTypes = {{
    {commInt8,       "int8",     1, false, true,  0,  0,     0},
    {commUint8,      "uint8",    1, false, false, 0,  0,     0},
    {commInt32,      "int32",    4, false, true,  0,  0,     0},
    {commUint32,     "uint32",   4, false, false, 0,  0,     0},
    {commInt64,      "int64",    8, false, true,  0,  0,     0},
    {commUint64,     "uint64",   8, false, false, 0,  0,     0},
    {commFloat16,    "half",     2, true,  true,  11, -14,   15},
    {commFloat32,    "float",    4, true,  true,  24, -126,  127},
    {commFloat64,    "double",   8, true,  true,  53, -1022, 1023},
    {commBfloat16,   "bfloat16", 2, true,  true,  8,  -126,  127},
    {commFloat8e4m3, "f8e4m3",   1, true,  true,  4,  -6,    8},
    {commFloat8e5m2, "f8e5m2",   1, true,  true,  3,  -14,   15},
}};

struct TypeAlias {
  std::string_view name;
  commDataType_t type;
};
constexpr TypeAlias kTypeAliases[] = {
    {"char", commInt8},         {"int", commInt32},        {"float16", commFloat16},
    {"fp16", commFloat16},      {"f16", commFloat16},      {"float32", commFloat32},
    {"fp32", commFloat32},      {"f32", commFloat32},      {"float64", commFloat64},
    {"fp64", commFloat64},      {"f64", commFloat64},      {"bf16", commBfloat16},
    {"e4m3", commFloat8e4m3},   {"float8e4m3", commFloat8e4m3}, {"fp8_e4m3", commFloat8e4m3},
    {"e5m2", commFloat8e5m2},   {"float8e5m2", commFloat8e5m2}, {"fp8_e5m2", commFloat8e5m2},
};
// clang-format on

constexpr std::array<const char*, 9> kOpNames = {"sum",    "prod", "max", "min", "avg",
                                                 "mulsum", "band", "bor", "bxor"};

// The bit pattern just above the largest finite value: infinity, or e4m3's NaN.
uint64_t overflow_bits(const TypeInfo& type) {
  switch (type.type) {
    case commFloat16:
      return 0x7c00;
    case commBfloat16:
      return 0x7f80;
    case commFloat8e4m3:
      return 0x7f;
    default:
      return 0x7c;  // e5m2
  }
}

}  // namespace

const TypeInfo& type_info(commDataType_t type) { return kTypes[static_cast<size_t>(type)]; }

std::span<const TypeInfo> all_types() { return kTypes; }

std::optional<commDataType_t> find_type(std::string_view name) {
  for (const TypeInfo& type : kTypes) {
    if (name == type.name) return type.type;
  }
  for (const TypeAlias& alias : kTypeAliases) {
    if (name == alias.name) return alias.type;
  }
  return std::nullopt;
}

const char* name_of(Op op) { return kOpNames[static_cast<size_t>(op)]; }

std::optional<Op> find_op(std::string_view name) {
  const auto found = std::find(kOpNames.begin(), kOpNames.end(), name);
  if (found == kOpNames.end()) return std::nullopt;
  return static_cast<Op>(found - kOpNames.begin());
}

bool is_defined(Op op, const TypeInfo& type) { return !(type.is_float && op >= Op::kBand); }

double decode_float(const TypeInfo& type, uint64_t bits) {
  if (type.type == commFloat64) return std::bit_cast<double>(bits);
  if (type.type == commFloat32) return std::bit_cast<float>(static_cast<uint32_t>(bits));
  const int width = static_cast<int>(type.size) * 8;
  const int mantissa_bits = type.precision - 1;
  const double sign = (bits >> (width - 1)) & 1 ? -1.0 : 1.0;
  const uint64_t magnitude = bits & ((uint64_t{1} << (width - 1)) - 1);
  const uint64_t overflow = overflow_bits(type);
  if (magnitude >= overflow) {
    const bool infinite = magnitude == overflow && type.type != commFloat8e4m3;
    return infinite ? sign * std::numeric_limits<double>::infinity()
                    : std::numeric_limits<double>::quiet_NaN();
  }
  const auto exponent = static_cast<int>(magnitude >> mantissa_bits);
  const uint64_t mantissa = magnitude & ((uint64_t{1} << mantissa_bits) - 1);
  // Subnormal values share the exponent of the smallest normal ones and have no hidden bit.
  const uint64_t significand = exponent == 0 ? mantissa : mantissa | (uint64_t{1} << mantissa_bits);
  const int scale = type.min_exponent + std::max(exponent, 1) - 1 - mantissa_bits;
  return sign * std::ldexp(static_cast<double>(significand), scale);
}

uint64_t encode_float(const TypeInfo& type, double x) {
  if (type.type == commFloat64) return std::bit_cast<uint64_t>(x);
  if (type.type == commFloat32) return std::bit_cast<uint32_t>(static_cast<float>(x));
  const int width = static_cast<int>(type.size) * 8;
  const int mantissa_bits = type.precision - 1;
  const uint64_t sign = std::signbit(x) ? uint64_t{1} << (width - 1) : 0;
  const uint64_t overflow = overflow_bits(type);
  if (std::isnan(x)) return sign | (overflow + (type.type == commFloat8e4m3 ? 0 : 1));
  if (std::isinf(x)) return sign | overflow;
  if (x == 0) return sign;
  // |x| in units of the spacing of the type's values there. Scaling by a power of two is exact, so
  // nearbyint is the only rounding.
  const int exponent = std::max(std::ilogb(x), type.min_exponent);
  const auto units =
      static_cast<uint64_t>(std::nearbyint(std::ldexp(std::fabs(x), mantissa_bits - exponent)));
  // Adding instead of or-ing lets a significand that rounded up carry into the exponent.
  const uint64_t magnitude =
      (static_cast<uint64_t>(exponent - type.min_exponent) << mantissa_bits) + units;
  return sign | std::min(magnitude, overflow);
}

double unit_in_last_place(const TypeInfo& type, double x) {
  const int exponent = x == 0 ? type.min_exponent : std::max(std::ilogb(x), type.min_exponent);
  return std::ldexp(1.0, exponent - (type.precision - 1));
}

}  // namespace bench
