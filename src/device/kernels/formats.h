// How each element type is taken out of memory, combined, and put back: the device's counterpart of
// src/reduce/formats-inl.h and operators-inl.h, for the same bits.
//
// A format names the element in memory (Bits) and the value that operators work on (Wide):
// integers, fp32 and fp64 as they are, 16- and 8-bit floats as fp32. `encode` rounds to nearest
// even and writes every NaN as the type's one NaN.
#pragma once

#include <cstdint>
#include <type_traits>

#include "src/device/kernels/platform.h"
#include "src/device/kernels/small_floats.h"
#include "src/reduce/types.h"

namespace libcomm::cuda {

template <typename T>
struct Integer {
  using Bits = std::make_unsigned_t<T>;
  using Wide = T;
  static constexpr bool kIsFloat = false;
  static COMM_DEVICE_CODE Wide decode(Bits bits) { return static_cast<T>(bits); }
  static COMM_DEVICE_CODE Bits encode(Wide value) { return static_cast<Bits>(value); }
};

template <typename B>
struct Float {
  using Bits = B;
  using Wide = float;
  static constexpr bool kIsFloat = true;
};

struct Float32 : Float<uint32_t> {
  static COMM_DEVICE_CODE Wide decode(Bits bits) { return float_of(bits); }
  static COMM_DEVICE_CODE Bits encode(Wide v) { return v != v ? 0x7FC00000u : bits_of(v); }
};

struct Float64 {
  using Bits = uint64_t;
  using Wide = double;
  static constexpr bool kIsFloat = true;
  static COMM_DEVICE_CODE Wide decode(Bits bits) { return double_of(bits); }
  static COMM_DEVICE_CODE Bits encode(Wide v) { return v != v ? 0x7FF8000000000000u : bits_of(v); }
};

struct Bfloat16 : Float<uint16_t> {
  static COMM_DEVICE_CODE Wide decode(Bits bits) { return float_of(uint32_t{bits} << 16); }
  static COMM_DEVICE_CODE Bits encode(Wide v) {
    const uint32_t bits = bits_of(v);
    const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
    return static_cast<Bits>(v != v ? 0x7FC0u : rounded);
  }
};

struct Float16 : Float<uint16_t> {
  static COMM_DEVICE_CODE Wide decode(Bits bits) { return float_of_half(bits); }
  static COMM_DEVICE_CODE Bits encode(Wide v) { return v != v ? Bits{0x7E00} : half_of(v); }
};

// e4m3 has no infinity: beyond the largest value there is only NaN.
struct Float8e4m3 : Float<uint8_t> {
  static COMM_DEVICE_CODE Wide decode(Bits bits) {
    const uint32_t magnitude = bits & 0x7Fu;
    const uint32_t sign = (bits & 0x80u) << 24;
    const uint32_t value = bits_of(E4m3Bits::widen(magnitude));
    return float_of(sign | (magnitude == 0x7F ? 0x7FC00000u : value));
  }
  static COMM_DEVICE_CODE Bits encode(Wide v) {
    const uint32_t bits = bits_of(v);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude >= 0x43E80001u) return 0x7F;
    return static_cast<Bits>((bits >> 24 & 0x80u) | E4m3Bits::narrow(magnitude));
  }
};

// e5m2 is the upper half of an fp16.
struct Float8e5m2 : Float<uint8_t> {
  static COMM_DEVICE_CODE Wide decode(Bits bits) {
    return float_of_half(static_cast<uint16_t>(bits << 8));
  }
  static COMM_DEVICE_CODE Bits encode(Wide v) {
    const uint32_t bits = bits_of(v);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    const uint32_t code = magnitude < 0x47700000u ? E5m2Bits::narrow(magnitude) : 0x7Cu;
    return static_cast<Bits>(v != v ? 0x7Eu : (bits >> 24 & 0x80u) | code);
  }
};

// Integers wrap. Extrema of floats: a NaN on either side gives NaN, +0 is greater than -0.
template <class F, ReduceOp kOp>
COMM_DEVICE_CODE typename F::Wide combine(typename F::Wide a, typename F::Wide b) {
  using Wide = typename F::Wide;
  if constexpr (!F::kIsFloat) {
    using U = std::make_unsigned_t<Wide>;
    // At least 32 bits of unsigned arithmetic: no promotion to int, which could overflow.
    const auto x = static_cast<U>(a) + 0u;
    const auto y = static_cast<U>(b) + 0u;
    if constexpr (kOp == ReduceOp::kSum) return static_cast<Wide>(static_cast<U>(x + y));
    if constexpr (kOp == ReduceOp::kProd) return static_cast<Wide>(static_cast<U>(x * y));
    if constexpr (kOp == ReduceOp::kMax) return a < b ? b : a;
    if constexpr (kOp == ReduceOp::kMin) return b < a ? b : a;
    if constexpr (kOp == ReduceOp::kBand) return static_cast<Wide>(static_cast<U>(x & y));
    if constexpr (kOp == ReduceOp::kBor) return static_cast<Wide>(static_cast<U>(x | y));
    if constexpr (kOp == ReduceOp::kBxor) return static_cast<Wide>(static_cast<U>(x ^ y));
  } else {
    if constexpr (kOp == ReduceOp::kSum) return a + b;
    if constexpr (kOp == ReduceOp::kProd) return a * b;
    if constexpr (kOp == ReduceOp::kMax || kOp == ReduceOp::kMin) {
      if (a < b) return kOp == ReduceOp::kMax ? b : a;
      if (b < a) return kOp == ReduceOp::kMax ? a : b;
      if (a != b) return a + b;  // one is a NaN, and so is the sum
      // Equal: zeros may differ in their signs. The sum of zeros is -0 only of two -0, the sum of
      // the negated ones +0 only of two -0; other values stay as they are.
      if (a != Wide{0}) return a;
      return kOp == ReduceOp::kMax ? a + b : -(-a + -b);
    }
  }
}

template <class F, ReduceOp kOp, int kCount>
COMM_DEVICE_CODE void combine_each(typename F::Wide (&sum)[kCount],
                                   const typename F::Wide (&next)[kCount]) {
  COMM_UNROLL
  for (int i = 0; i < kCount; ++i) sum[i] = combine<F, kOp>(sum[i], next[i]);
}

// sum[i] = sum[i] op next[i]. The operator is defined for the type.
template <class F, int kCount>
COMM_DEVICE_CODE void combine_all(ReduceOp op, typename F::Wide (&sum)[kCount],
                                  const typename F::Wide (&next)[kCount]) {
  switch (op) {
    case ReduceOp::kSum:
      return combine_each<F, ReduceOp::kSum>(sum, next);
    case ReduceOp::kProd:
      return combine_each<F, ReduceOp::kProd>(sum, next);
    case ReduceOp::kMax:
      return combine_each<F, ReduceOp::kMax>(sum, next);
    case ReduceOp::kMin:
      return combine_each<F, ReduceOp::kMin>(sum, next);
    default:
      break;
  }
  if constexpr (!F::kIsFloat) {
    switch (op) {
      case ReduceOp::kBand:
        return combine_each<F, ReduceOp::kBand>(sum, next);
      case ReduceOp::kBor:
        return combine_each<F, ReduceOp::kBor>(sum, next);
      default:
        return combine_each<F, ReduceOp::kBxor>(sum, next);
    }
  }
}

// The product, rounded to the type as if it had been stored.
template <class F>
COMM_DEVICE_CODE typename F::Wide scale(typename F::Wide wide, typename F::Wide scalar) {
  return F::decode(F::encode(combine<F, ReduceOp::kProd>(wide, scalar)));
}

// The division of an average. A power of two divides by an exact multiplication: the same bits,
// sooner.
template <class F>
class Divider {
 public:
  explicit COMM_DEVICE_CODE Divider(int by)
      : by_(by), exact_((by & (by - 1)) == 0), factor_(exact_ ? reciprocal(by) : value(by)) {}

  COMM_DEVICE_CODE typename F::Wide apply(typename F::Wide wide) const {
    if (by_ == 1) return wide;
    if constexpr (F::kIsFloat) {
      return exact_ ? wide * factor_ : wide / factor_;
    } else {
      // Truncates towards zero; a divisor beyond the type's range leaves 0, so divide wider.
      using Wider = std::conditional_t<
          sizeof(wide) == 8, typename F::Wide,
          std::conditional_t<std::is_signed_v<typename F::Wide>, int32_t, uint32_t>>;
      return static_cast<typename F::Wide>(static_cast<Wider>(wide) / static_cast<Wider>(by_));
    }
  }

 private:
  using Factor = std::conditional_t<F::kIsFloat, typename F::Wide, int>;
  static COMM_DEVICE_CODE Factor value(int by) { return static_cast<Factor>(by); }
  static COMM_DEVICE_CODE Factor reciprocal(int by) { return Factor{1} / static_cast<Factor>(by); }

  int by_;
  bool exact_;
  Factor factor_;
};

}  // namespace libcomm::cuda
