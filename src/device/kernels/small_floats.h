// Floats of 8 and 16 bits to and from fp32, by arithmetic on bits.
//
// Widening is exact. Narrowing rounds to nearest even; NaNs are the caller's business.
#pragma once

#include <cstdint>

#include "src/device/kernels/platform.h"

namespace libcomm::cuda {

// kMantissa: explicit mantissa bits. kOverflow: the smallest fp32 magnitude, as bits, that no
// longer rounds to a finite value.
template <int kMantissa, int kBias, uint32_t kOverflow>
struct SmallFloat {
  static constexpr int kShift = 23 - kMantissa;
  static constexpr uint32_t kMinNormal = static_cast<uint32_t>(128 - kBias) << 23;

  // A finite magnitude of this type to fp32. Its exponent is wrong by the difference of the biases,
  // which one exact multiplication puts right, for subnormals too.
  static COMM_DEVICE_CODE float widen(uint32_t magnitude) {
    constexpr uint32_t kPower = static_cast<uint32_t>(127 + 127 - kBias) << 23;
    return float_of(magnitude << kShift) * float_of(kPower);
  }

  // An fp32 magnitude below kOverflow, as bits, to this type's.
  static COMM_DEVICE_CODE uint32_t narrow(uint32_t magnitude) {
    if (magnitude < kMinNormal) {
      // A sum whose last place is this type's smallest value: fp32's own rounding does the rest.
      constexpr uint32_t kMagic = static_cast<uint32_t>(127 + 24 - kBias - kMantissa) << 23;
      return bits_of(float_of(magnitude) + float_of(kMagic)) - kMagic;
    }
    const uint32_t odd = magnitude >> kShift & 1;
    const uint32_t rounded = magnitude + (1u << (kShift - 1)) - 1 + odd;
    return (rounded >> kShift) - (static_cast<uint32_t>(127 - kBias) << kMantissa);
  }
};

// 65520 is half way between the largest fp16 and the next power of two; 464 between the largest
// e4m3, 448, and its NaN's place, and still rounds to 448; 61440 is half way for e5m2.
using HalfBits = SmallFloat<10, 15, 0x477FF000u>;
using E4m3Bits = SmallFloat<3, 7, 0x43E80001u>;
using E5m2Bits = SmallFloat<2, 15, 0x47700000u>;

#if !defined(__CUDACC__)
inline float float_of_half(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7FFFu;
  const uint32_t sign = (bits & 0x8000u) << 16;
  if (magnitude >= 0x7C00u) return float_of(sign | 0x7F800000u | magnitude << 13);
  return float_of(sign | bits_of(HalfBits::widen(magnitude)));
}
inline uint16_t half_of(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t code = magnitude < 0x477FF000u ? HalfBits::narrow(magnitude) : 0x7C00u;
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) | code);
}
#endif

}  // namespace libcomm::cuda
