#include "tests/collectives/elements.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace elements {
namespace {

// Width of a float's fields; none for integers.
struct Format {
  int exponent = 0;
  int mantissa = 0;
};

Format format_of(commDataType_t type) {
  switch (type) {
    case commFloat16:
      return {5, 10};
    case commBfloat16:
      return {8, 7};
    case commFloat32:
      return {8, 23};
    case commFloat64:
      return {11, 52};
    case commFloat8e4m3:
      return {4, 3};
    case commFloat8e5m2:
      return {5, 2};
    default:
      return {};
  }
}

bool is_signed(commDataType_t type) {
  return type == commInt8 || type == commInt32 || type == commInt64;
}

// Bits of a value that the format holds exactly as a normal number or zero.
uint64_t encode(double value, commDataType_t type) {
  const Format format = format_of(type);
  if (value == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent) * 2 - 1;  // 1.fraction
  const int bias = (1 << (format.exponent - 1)) - 1;
  const auto mantissa = static_cast<uint64_t>(std::ldexp(fraction, format.mantissa));
  const uint64_t sign = value < 0 ? 1 : 0;
  return sign << (format.exponent + format.mantissa) |
         static_cast<uint64_t>(exponent - 1 + bias) << format.mantissa | mantissa;
}

double decode(uint64_t bits, commDataType_t type) {
  const Format format = format_of(type);
  const int bias = (1 << (format.exponent - 1)) - 1;
  const uint64_t mantissa = bits & ((uint64_t{1} << format.mantissa) - 1);
  const auto exponent =
      static_cast<int>(bits >> format.mantissa & ((uint64_t{1} << format.exponent) - 1));
  const bool negative = (bits >> (format.exponent + format.mantissa) & 1) != 0;
  const bool e4m3 = type == commFloat8e4m3;  // has no infinity and one NaN
  const bool special = exponent == (1 << format.exponent) - 1 && (!e4m3 || mantissa == 7);
  double value = 0;
  if (special) {
    value = std::nan("");
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<double>(mantissa), 1 - bias - format.mantissa);
  } else {
    value = std::ldexp(1 + std::ldexp(static_cast<double>(mantissa), -format.mantissa),
                       exponent - bias);
  }
  return negative ? -value : value;
}

uint64_t truncate(uint64_t value, commDataType_t type) {
  const size_t bits = size_of(type) * 8;
  return bits == 64 ? value : value & ((uint64_t{1} << bits) - 1);
}

int64_t sign_extend(uint64_t value, commDataType_t type) {
  const size_t shift = 64 - size_of(type) * 8;
  return static_cast<int64_t>(value << shift) >> shift;
}

// -1, 0 or 1; over consecutive ranks each comes once in three.
int push(uint64_t seed, int rank, size_t index) {
  const uint64_t h = hash(seed, index);
  const uint64_t stride = 1 + (h >> 8 & 1);
  return static_cast<int>((h % 3 + stride * static_cast<uint64_t>(rank)) % 3) - 1;
}

double float_value(Op op, uint64_t seed, int rank, size_t index) {
  const uint64_t shared = hash(seed ^ 0x5eed, index);
  switch (op) {
    case Op::kProd: {
      const int sign = (hash(seed + 7, index * 16 + static_cast<size_t>(rank)) & 1) != 0 ? -1 : 1;
      return sign * std::ldexp(1.0, push(seed, rank, index));
    }
    case Op::kMax:
    case Op::kMin:
      return static_cast<double>(hash(seed + 9, index * 16 + static_cast<size_t>(rank)) % 15) - 7;
    default:
      return push(seed, rank, index) * std::ldexp(1.0, static_cast<int>(shared % 5) - 2);
  }
}

bool is_reduced_float(double got, commDataType_t type, Op op, uint64_t seed, int nranks,
                      size_t index) {
  double want = float_value(op, seed, 0, index);
  for (int rank = 1; rank < nranks; ++rank) {
    double value = float_value(op, seed, rank, index);
    switch (op) {
      case Op::kProd:
        want *= value;
        break;
      case Op::kMax:
        want = std::max(want, value);
        break;
      case Op::kMin:
        want = std::min(want, value);
        break;
      case Op::kPreMulSum:
        value *= rank % 2 == 0 ? 1 : -1;
        [[fallthrough]];
      default:
        want += value;
    }
  }
  if (op != Op::kAvg) return got == want;
  // A division is exact or off by its one rounding.
  want /= nranks;
  return std::fabs(got - want) <= std::fabs(want) * std::ldexp(1.0, -1 - format_of(type).mantissa);
}

bool is_reduced_integer(uint64_t got, commDataType_t type, Op op, uint64_t seed, int nranks,
                        size_t index) {
  uint64_t want = input_bits(type, op, seed, 0, index);
  for (int rank = 1; rank < nranks; ++rank) {
    const uint64_t value = input_bits(type, op, seed, rank, index);
    const bool less =
        is_signed(type) ? sign_extend(value, type) < sign_extend(want, type) : value < want;
    switch (op) {
      case Op::kProd:
        want *= value;
        break;
      case Op::kMax:
        want = less ? want : value;
        break;
      case Op::kMin:
        want = less ? value : want;
        break;
      case Op::kBand:
        want &= value;
        break;
      case Op::kBor:
        want |= value;
        break;
      case Op::kBxor:
        want ^= value;
        break;
      case Op::kPreMulSum:
        want += rank % 2 == 0 ? value : uint64_t{0} - value;
        break;
      default:
        want += value;
    }
  }
  if (op == Op::kAvg) {
    want = truncate(want, type);
    const auto n = static_cast<uint64_t>(nranks);
    want = is_signed(type)
               ? static_cast<uint64_t>(sign_extend(want, type) / static_cast<int64_t>(n))
               : want / n;
  }
  return got == truncate(want, type);
}

}  // namespace

const char* name_of(Op op) {
  constexpr const char* kNames[] = {"sum",       "prod", "max", "min", "avg",
                                    "premulsum", "band", "bor", "bxor"};
  return kNames[static_cast<int>(op)];
}

const char* name_of(commDataType_t type) {
  constexpr const char* kNames[] = {"int8", "uint8", "int32", "uint32", "int64", "uint64",
                                    "fp16", "fp32",  "fp64",  "bf16",   "e4m3",  "e5m2"};
  return kNames[static_cast<int>(type)];
}

bool is_float(commDataType_t type) { return format_of(type).exponent != 0; }

bool is_defined(Op op, commDataType_t type) {
  return !is_float(type) || (op != Op::kBand && op != Op::kBor && op != Op::kBxor);
}

size_t size_of(commDataType_t type) {
  switch (type) {
    case commInt8:
    case commUint8:
    case commFloat8e4m3:
    case commFloat8e5m2:
      return 1;
    case commFloat16:
    case commBfloat16:
      return 2;
    case commInt64:
    case commUint64:
    case commFloat64:
      return 8;
    default:
      return 4;
  }
}

// splitmix64's finalizer over both words.
uint64_t hash(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9e3779b97f4a7c15u + b;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t input_bits(commDataType_t type, Op op, uint64_t seed, int rank, size_t index) {
  if (is_float(type)) return encode(float_value(op, seed, rank, index), type);
  return truncate(hash(hash(seed, static_cast<uint64_t>(rank)), index), type);
}

uint64_t factor_bits(commDataType_t type, int rank) {
  const int factor = rank % 2 == 0 ? 1 : -1;
  if (is_float(type)) return encode(factor, type);
  return truncate(static_cast<uint64_t>(static_cast<int64_t>(factor)), type);
}

bool is_reduced(uint64_t bits, commDataType_t type, Op op, uint64_t seed, int nranks,
                size_t index) {
  return is_float(type) ? is_reduced_float(decode(bits, type), type, op, seed, nranks, index)
                        : is_reduced_integer(bits, type, op, seed, nranks, index);
}

double value_of(uint64_t bits, commDataType_t type) {
  if (is_float(type)) return decode(bits, type);
  return is_signed(type) ? static_cast<double>(sign_extend(bits, type)) : static_cast<double>(bits);
}

}  // namespace elements
