// How each element type is loaded into the lanes it is combined in, and stored again.
//
// A format names the vector that memory holds (Raw: `kLanes` elements) and the vectors that the
// operators work on (Wide: one or two of them), and converts between the two. Integers, fp32 and
// fp64 are combined as they are; 16- and 8-bit floats as fp32, which holds every value of theirs
// exactly. `encode` rounds to nearest even and writes every NaN as the same NaN: which payload
// survives an addition depends on the instruction set and on how the compiler ordered the operands.
//
// Included once per instruction set, hence the guard that toggles instead of #pragma once.
#if defined(COMM_REDUCE_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMM_REDUCE_FORMATS_INL_H_
#undef COMM_REDUCE_FORMATS_INL_H_
#else
#define COMM_REDUCE_FORMATS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "src/reduce/operators-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class V, int kCount>
struct Parts {
  static constexpr int kParts = kCount;
  V part[kCount];
};

// Lanes that are combined as they are.
template <typename T>
struct Native {
  using D = hn::ScalableTag<T>;
  using WideD = D;
  using Raw = hn::Vec<D>;
  using Wide = Parts<Raw, 1>;
  static constexpr size_t kLanes = hn::MaxLanes(D());
  static constexpr int kUnroll = HWY_TARGET == HWY_SCALAR ? 1 : 4;

  static HWY_INLINE Wide decode(Raw raw) { return {{raw}}; }
  static HWY_INLINE Raw encode(const Wide& wide) {
    if constexpr (hwy::IsFloat<T>()) {
      return hn::IfThenElse(hn::IsNaN(wide.part[0]), quiet_nan(D()), wide.part[0]);
    } else {
      return wide.part[0];
    }
  }
};

using Fp32D = hn::ScalableTag<float>;
using Fp32V = hn::Vec<Fp32D>;
using Bits32D = hn::RebindToUnsigned<Fp32D>;
using Bits32V = hn::Vec<Bits32D>;

// bf16 is the upper half of an fp32. A vector of them becomes its odd elements, which are in place
// already, and its even elements, moved up.
#if HWY_TARGET != HWY_SCALAR
struct Bfloat16 {
  using D = hn::Repartition<uint16_t, Fp32D>;
  using WideD = Fp32D;
  using Raw = hn::Vec<D>;
  using Wide = Parts<Fp32V, 2>;
  static constexpr size_t kLanes = hn::MaxLanes(D());
  static constexpr int kUnroll = 2;

  static HWY_INLINE Wide decode(Raw raw) {
    const Fp32D f;
    const Bits32D u;
    const Bits32V pairs = hn::BitCast(u, raw);
    return {{hn::BitCast(f, hn::ShiftLeft<16>(pairs)),
             hn::BitCast(f, hn::And(pairs, hn::Set(u, 0xFFFF0000u)))}};
  }

  // Rounds in 16-bit lanes, where a vector holds all results: high + 1 when low > 0x8000, or when
  // low == 0x8000 and high is odd. That is the top bit of low - !odd, saturated at 0. A NaN passes
  // through: those that arithmetic on widened bf16 makes have a low half of 0.
  static HWY_INLINE Raw encode(const Wide& wide) {
    const D d;
    const Bits32D u;
    const Bits32V even = hn::BitCast(u, wide.part[0]);
    const Bits32V odd = hn::BitCast(u, wide.part[1]);
    const Raw high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<16>(even)));
    const Raw low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<16>(odd)), hn::BitCast(d, even));
    const Raw is_even = hn::AndNot(high, hn::Set(d, uint16_t{1}));
    const Raw carry = hn::ShiftRight<15>(hn::SaturatedSub(low, is_even));
    const Raw rounded = hn::Add(high, carry);
    const hn::RebindToSigned<D> i;
    const auto magnitude = hn::BitCast(i, hn::And(rounded, hn::Set(d, uint16_t{0x7FFF})));
    const auto nan = hn::RebindMask(d, hn::Gt(magnitude, hn::Set(i, int16_t{0x7F80})));
    return hn::IfThenElse(nan, hn::Set(d, uint16_t{0x7FC0}), rounded);
  }
};
#else
struct Bfloat16 {
  using D = hn::Rebind<uint16_t, Fp32D>;
  using WideD = Fp32D;
  using Raw = hn::Vec<D>;
  using Wide = Parts<Fp32V, 1>;
  static constexpr size_t kLanes = hn::MaxLanes(D());
  static constexpr int kUnroll = 1;

  static HWY_INLINE Wide decode(Raw raw) {
    return {{hn::BitCast(Fp32D(), hn::ShiftLeft<16>(hn::PromoteTo(Bits32D(), raw)))}};
  }
  static HWY_INLINE Raw encode(const Wide& wide) {
    const Bits32D u;
    const Bits32V bits = hn::BitCast(u, wide.part[0]);
    const Bits32V odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1u));
    const Bits32V rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7FFFu))));
    const auto nan = hn::RebindMask(u, hn::IsNaN(wide.part[0]));
    const Bits32V result = hn::IfThenElse(nan, hn::Set(u, 0x7FC0u), rounded);
    return hn::DemoteTo(D(), hn::BitCast(hn::RebindToSigned<Bits32D>(), result));
  }
};
#endif

// Any small float, by arithmetic on the bits of fp32. kMantissa explicit mantissa bits; kOverflow:
// the smallest fp32 magnitude (as bits) that no longer rounds to a finite value, kOverflowCode what
// it becomes; kNan the NaN that is written. With kHasInf the largest exponent means inf and NaN, as
// in IEEE 754; without, only the largest code is a NaN.
template <typename Lane, int kMantissa, int kBias, bool kHasInf, uint32_t kOverflow,
          uint32_t kOverflowCode, uint32_t kNan>
struct SmallFloat {
  using D = hn::Rebind<Lane, Fp32D>;
  using WideD = Fp32D;
  using Raw = hn::Vec<D>;
  using Wide = Parts<Fp32V, 1>;
  static constexpr size_t kLanes = hn::MaxLanes(D());
  static constexpr int kUnroll = 1;

  static constexpr int kBits = 8 * sizeof(Lane);
  static constexpr int kShift = 23 - kMantissa;
  static constexpr uint32_t kSign = 1u << (kBits - 1);
  static constexpr uint32_t kMagnitude = kSign - 1;
  // What to add to an exponent field of this type to get fp32's.
  static constexpr uint32_t kRebias = 127 - kBias;
  // The smallest normal value, as fp32. Subnormals are multiples of it over 2^kMantissa.
  static constexpr uint32_t kMinNormal = (kRebias + 1) << 23;

  static HWY_INLINE Wide decode(Raw raw) {
    const Fp32D f;
    const Bits32D u;
    const Bits32V bits = hn::PromoteTo(u, raw);
    const Bits32V magnitude = hn::And(bits, hn::Set(u, kMagnitude));
    const Bits32V sign = hn::ShiftLeft<32 - kBits>(hn::And(bits, hn::Set(u, kSign)));
    const Bits32V normal = hn::Add(hn::ShiftLeft<kShift>(magnitude), hn::Set(u, kRebias << 23));
    // A subnormal read with exponent 1 is too large by exactly the smallest normal value.
    const Fp32V min_normal = hn::BitCast(f, hn::Set(u, kMinNormal));
    const Bits32V subnormal =
        hn::BitCast(u, hn::Sub(hn::BitCast(f, hn::Add(normal, hn::Set(u, 1u << 23))), min_normal));
    const auto is_subnormal = less(magnitude, 1u << kMantissa);
    Bits32V value = hn::IfThenElse(is_subnormal, subnormal, normal);
    constexpr uint32_t kFirstSpecial =
        kHasInf ? (kMagnitude >> kMantissa) << kMantissa : kMagnitude;
    // All exponent bits: keeps the mantissa, so inf stays inf and NaN stays NaN.
    const Bits32V special = hn::Or(value, hn::Set(u, 0x7F800000u));
    value = hn::IfThenElse(less(magnitude, kFirstSpecial), value, special);
    return {{hn::BitCast(f, hn::Or(value, sign))}};
  }

  static HWY_INLINE Raw encode(const Wide& wide) {
    const Fp32D f;
    const Bits32D u;
    const hn::RebindToSigned<Bits32D> i;
    const Bits32V bits = hn::BitCast(u, wide.part[0]);
    const Bits32V magnitude = hn::And(bits, hn::Set(u, 0x7FFFFFFFu));
    // Adding a power of two whose last place is the last place of the result makes fp32's own
    // rounding drop the rest; below the smallest normal value the last place no longer moves.
    const Bits32V exponent =
        hn::BitCast(u, hn::Max(hn::BitCast(i, hn::And(magnitude, hn::Set(u, 0x7F800000u))),
                               hn::Set(i, static_cast<int32_t>(kMinNormal))));
    const Fp32V magic =
        hn::BitCast(f, hn::Add(exponent, hn::Set(u, static_cast<uint32_t>(kShift) << 23)));
    const Fp32V rounded = hn::Sub(hn::Add(hn::BitCast(f, magnitude), magic), magic);
    // The same trick as in decode, the other way round, gives the code of a subnormal.
    const auto is_subnormal = less(hn::BitCast(u, rounded), kMinNormal);
    const Fp32V min_normal = hn::BitCast(f, hn::Set(u, kMinNormal));
    const Fp32V shifted =
        hn::IfThenElse(hn::RebindMask(f, is_subnormal), hn::Add(rounded, min_normal), rounded);
    const Bits32V rebias = hn::IfThenElse(is_subnormal, hn::Set(u, (kRebias + 1) << kMantissa),
                                          hn::Set(u, kRebias << kMantissa));
    Bits32V code = hn::Sub(hn::ShiftRight<kShift>(hn::BitCast(u, shifted)), rebias);
    code = hn::IfThenElse(less(magnitude, kOverflow), code, hn::Set(u, kOverflowCode));
    const Bits32V sign = hn::And(hn::ShiftRight<32 - kBits>(bits), hn::Set(u, kSign));
    constexpr uint32_t kFirstNan = kOverflowCode == kNan ? kOverflow : 0x7F800001u;
    code = hn::IfThenElse(less(magnitude, kFirstNan), hn::Or(code, sign), hn::Set(u, kNan));
    return hn::DemoteTo(D(), hn::BitCast(i, code));
  }

 private:
  // Both below 2^31, where signed comparison, which every instruction set has, is right.
  static HWY_INLINE hn::Mask<Bits32D> less(Bits32V a, uint32_t b) {
    const hn::RebindToSigned<Bits32D> i;
    return hn::RebindMask(Bits32D(),
                          hn::Lt(hn::BitCast(i, a), hn::Set(i, static_cast<int32_t>(b))));
  }
};

// 65520 is half way between the largest fp16, 65504, and the next power of two.
using PortableFloat16 = SmallFloat<uint16_t, 10, 15, true, 0x477FF000u, 0x7C00u, 0x7E00u>;
// Above 464, half way between 448 and the NaN's place, there is only NaN; 464 itself rounds to 448.
using Float8e4m3 = SmallFloat<uint8_t, 3, 7, false, 0x43E80001u, 0x7Fu, 0x7Fu>;
// 61440 is half way between 57344 and the next power of two.
using Float8e5m2 = SmallFloat<uint8_t, 2, 15, true, 0x47700000u, 0x7Cu, 0x7Eu>;

// AVX2 machines convert fp16 in hardware (F16C), to nearest even, subnormals included.
#if HWY_TARGET <= HWY_AVX2
struct Float16 {
  using D = hn::Rebind<uint16_t, Fp32D>;
  using HalfD = hn::Rebind<hwy::float16_t, Fp32D>;
  using WideD = Fp32D;
  using Raw = hn::Vec<D>;
  using Wide = Parts<Fp32V, 1>;
  static constexpr size_t kLanes = hn::MaxLanes(D());
  static constexpr int kUnroll = 4;

  static HWY_INLINE Wide decode(Raw raw) {
    return {{hn::PromoteTo(Fp32D(), hn::BitCast(HalfD(), raw))}};
  }
  static HWY_INLINE Raw encode(const Wide& wide) {
    const Fp32V v = hn::IfThenElse(hn::IsNaN(wide.part[0]), quiet_nan(Fp32D()), wide.part[0]);
    return hn::BitCast(D(), hn::DemoteTo(HalfD(), v));
  }
};
#else
using Float16 = PortableFloat16;
#endif

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#endif  // include guard
