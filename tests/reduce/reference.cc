#include "tests/reduce/reference.h"

#include "src/reduce/targets.h"
//
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace libcomm::reference {

namespace {

struct SmallType {
  int bits;
  int mantissa;
  int bias;
  bool has_inf;
  uint64_t nan;
};

SmallType small_type(DataType type) {
  switch (type) {
    case DataType::kFloat16:
      return {16, 10, 15, true, 0x7E00};
    case DataType::kBfloat16:
      return {16, 7, 127, true, 0x7FC0};
    case DataType::kFloat8e4m3:
      return {8, 3, 7, false, 0x7F};
    default:
      return {8, 2, 15, true, 0x7E};
  }
}

// Reads a non-negative code, also the one after the largest finite value as the number it would be.
double magnitude_value(const SmallType& t, uint64_t code) {
  const int exponent = static_cast<int>(code >> t.mantissa);
  const double fraction = static_cast<double>(code & ((1u << t.mantissa) - 1));
  const double one = std::ldexp(1.0, t.mantissa);
  return exponent == 0 ? std::ldexp(fraction / one, 1 - t.bias)
                       : std::ldexp(1.0 + fraction / one, exponent - t.bias);
}

// The first code that is not finite.
uint64_t end_of_finite(const SmallType& t) {
  const uint64_t magnitude = (1u << (t.bits - 1)) - 1;
  return t.has_inf ? (magnitude >> t.mantissa) << t.mantissa : magnitude;
}

uint64_t encode_small(const SmallType& t, double value) {
  if (std::isnan(value)) return t.nan;
  const uint64_t sign = std::signbit(value) ? 1u << (t.bits - 1) : 0;
  const double x = std::fabs(value);
  const uint64_t end = end_of_finite(t);
  uint64_t low = 0;  // the largest code whose value is not above x, or the last finite one
  uint64_t high = end;
  while (high - low > 1) {
    const uint64_t middle = (low + high) / 2;
    (magnitude_value(t, middle) <= x ? low : high) = middle;
  }
  const double below = x - magnitude_value(t, low);
  const double above = magnitude_value(t, low + 1) - x;
  const bool up = below > above || (below == above && low % 2 == 1);
  const uint64_t code = low + (up ? 1 : 0);
  if (code == end && !t.has_inf) return t.nan;
  return sign | code;
}

bool is_small(DataType type) {
  return !is_integer(type) && type != DataType::kFloat32 && type != DataType::kFloat64;
}

template <typename T>
T extremum(T a, T b, bool want_max) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<T>::quiet_NaN();
  if (a == b) return std::signbit(a) == want_max ? b : a;
  return (a > b) == want_max ? a : b;
}

template <typename T>
T fold_float(DataType type, ReduceOp op, const std::vector<uint64_t>& sources, int divisor) {
  T result = static_cast<T>(decode(type, sources[0]));
  for (size_t i = 1; i < sources.size(); ++i) {
    const T next = static_cast<T>(decode(type, sources[i]));
    if (op == ReduceOp::kSum) result = result + next;
    if (op == ReduceOp::kProd) result = result * next;
    if (op == ReduceOp::kMax) result = extremum(result, next, true);
    if (op == ReduceOp::kMin) result = extremum(result, next, false);
  }
  return divisor == 1 ? result : result / static_cast<T>(divisor);
}

bool is_signed_type(DataType type) {
  return type == DataType::kInt8 || type == DataType::kInt32 || type == DataType::kInt64;
}

// The value of an integer element, wide enough for every type.
__extension__ typedef __int128 Wide;

Wide widen(DataType type, uint64_t bits) {
  const int width = static_cast<int>(8 * size_of(type));
  Wide value = bits;
  if (is_signed_type(type) && ((bits >> (width - 1)) & 1) != 0) value -= Wide{1} << width;
  return value;
}

uint64_t wrap(DataType type, Wide value) {
  const size_t width = 8 * size_of(type);
  const uint64_t bits = static_cast<uint64_t>(value);
  return width == 64 ? bits : bits & ((uint64_t{1} << width) - 1);
}

Wide combine_integers(ReduceOp op, Wide a, Wide b) {
  switch (op) {
    case ReduceOp::kSum:
      return a + b;
    case ReduceOp::kProd:  // two 64-bit values: only the low half matters
      return static_cast<Wide>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    case ReduceOp::kMax:
      return std::max(a, b);
    case ReduceOp::kMin:
      return std::min(a, b);
    case ReduceOp::kBand:
      return a & b;
    case ReduceOp::kBor:
      return a | b;
    case ReduceOp::kBxor:
      return a ^ b;
  }
  return 0;
}

}  // namespace

uint64_t load(const void* array, size_t index, DataType type) {
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const uint8_t*>(array) + index * size_of(type), size_of(type));
  return bits;
}

void store(void* array, size_t index, DataType type, uint64_t bits) {
  std::memcpy(static_cast<uint8_t*>(array) + index * size_of(type), &bits, size_of(type));
}

bool is_nan(DataType type, uint64_t bits) { return std::isnan(decode(type, bits)); }

uint64_t canonical_nan(DataType type) {
  if (type == DataType::kFloat32) return 0x7FC00000;
  if (type == DataType::kFloat64) return 0x7FF8000000000000;
  return small_type(type).nan;
}

double decode(DataType type, uint64_t bits) {
  if (type == DataType::kFloat32) return std::bit_cast<float>(static_cast<uint32_t>(bits));
  if (type == DataType::kFloat64) return std::bit_cast<double>(bits);
  const SmallType t = small_type(type);
  const uint64_t sign = uint64_t{1} << (t.bits - 1);
  const uint64_t code = bits & (sign - 1);
  double value;
  if (code < end_of_finite(t)) {
    value = magnitude_value(t, code);
  } else if (t.has_inf && code == end_of_finite(t)) {
    value = std::numeric_limits<double>::infinity();
  } else {
    value = std::numeric_limits<double>::quiet_NaN();
  }
  return (bits & sign) != 0 ? -value : value;
}

uint64_t encode(DataType type, double value) {
  if (std::isnan(value)) return canonical_nan(type);
  if (type == DataType::kFloat32) return std::bit_cast<uint32_t>(static_cast<float>(value));
  if (type == DataType::kFloat64) return std::bit_cast<uint64_t>(value);
  return encode_small(small_type(type), value);
}

uint64_t reduce(DataType type, ReduceOp op, const std::vector<uint64_t>& sources, int divisor) {
  if (sources.size() == 1 && divisor == 1) return sources[0];
  if (type == DataType::kFloat64) {
    return encode(type, fold_float<double>(type, op, sources, divisor));
  }
  if (!is_integer(type)) return encode(type, fold_float<float>(type, op, sources, divisor));
  uint64_t result = sources[0];
  for (size_t i = 1; i < sources.size(); ++i) {
    result = wrap(type, combine_integers(op, widen(type, result), widen(type, sources[i])));
  }
  return wrap(type, widen(type, result) / divisor);
}

uint64_t scale(DataType type, uint64_t element, uint64_t scalar) {
  return reduce(type, ReduceOp::kProd, {element, scalar}, 1);
}

std::vector<DataType> all_types() {
  std::vector<DataType> types;
  for (int i = 0; i < kNumDataTypes; ++i) types.push_back(static_cast<DataType>(i));
  return types;
}

void for_each_kernel(const std::function<void(DataType, ReduceOp)>& visit) {
  for (DataType type : all_types()) {
    for (int i = 0; i < kNumReduceOps; ++i) {
      const ReduceOp op = static_cast<ReduceOp>(i);
      if (is_defined(op, type)) visit(type, op);
    }
  }
}

void for_each_target(const std::function<void(const std::string& name)>& body) {
  std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  for (int64_t target : targets) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    body(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

Bytes random_elements(DataType type, size_t count, bool tame, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(count * size_of(type));
  for (size_t i = 0; i < count; ++i) {
    uint64_t bits = random();
    if (tame) {
      const int number = static_cast<int>(random() % 61) - 30;
      if (is_integer(type)) {
        bits = wrap(type, number);
      } else {
        const double fraction = is_small(type) ? 0.125 : 1.0 / 3;
        bits = encode(type, static_cast<float>(number * fraction));
      }
    }
    store(bytes.data(), i, type, bits);
  }
  return bytes;
}

}  // namespace libcomm::reference
