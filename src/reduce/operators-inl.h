// The seven operators on vectors of one lane type.
//
// Included once per instruction set, hence the guard that toggles instead of #pragma once.
#if defined(COMM_REDUCE_OPERATORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMM_REDUCE_OPERATORS_INL_H_
#undef COMM_REDUCE_OPERATORS_INL_H_
#else
#define COMM_REDUCE_OPERATORS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct Sum {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D, V a, V b) {
    return hn::Add(a, b);
  }
};

struct Prod {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D d, V a, V b) {
#if HWY_TARGET != HWY_SCALAR
    if constexpr (sizeof(hn::TFromD<D>) == 1) {
      // No 8-bit multiplication exists: the low halves of the products of even and of odd bytes.
      const hn::Repartition<uint16_t, D> d16;
      const auto a16 = hn::BitCast(d16, a);
      const auto b16 = hn::BitCast(d16, b);
      const auto even = hn::Mul(a16, b16);
      const auto odd = hn::Mul(hn::ShiftRight<8>(a16), hn::ShiftRight<8>(b16));
      return hn::OddEven(hn::BitCast(d, hn::ShiftLeft<8>(odd)), hn::BitCast(d, even));
    } else  // NOLINT: the return below
#endif
    {
      (void)d;
      return hn::Mul(a, b);
    }
  }
};

// The one NaN that results carry: positive, quiet, no payload.
template <class D>
HWY_INLINE hn::Vec<D> quiet_nan(D d) {
  using Bits = hwy::MakeUnsigned<hn::TFromD<D>>;
  constexpr Bits kBits =
      sizeof(Bits) == 4 ? Bits{0x7FC00000u} : static_cast<Bits>(0x7FF8000000000000ull);
  return hn::BitCast(d, hn::Set(hn::RebindToUnsigned<D>(), kBits));
}

// What instruction sets do with NaN and with zeros of two signs differs, also with the order of the
// operands. Taking the extremum in both orders leaves either equal bits, or zeros of two signs,
// which And (a + unless both are -) and Or (a - unless both are +) settle.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V nan_if_either_is(D d, V a, V b, V otherwise) {
  const auto nan = hn::Or(hn::IsNaN(a), hn::IsNaN(b));
  return hn::IfThenElse(nan, quiet_nan(d), otherwise);
}

struct Max {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D d, V a, V b) {
    if constexpr (hwy::IsFloat<hn::TFromD<D>>()) {
      return nan_if_either_is(d, a, b, hn::And(hn::Max(a, b), hn::Max(b, a)));
    } else {
      (void)d;
      return hn::Max(a, b);
    }
  }
};

struct Min {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D d, V a, V b) {
    if constexpr (hwy::IsFloat<hn::TFromD<D>>()) {
      return nan_if_either_is(d, a, b, hn::Or(hn::Min(a, b), hn::Min(b, a)));
    } else {
      (void)d;
      return hn::Min(a, b);
    }
  }
};

struct Band {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D, V a, V b) {
    return hn::And(a, b);
  }
};

struct Bor {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D, V a, V b) {
    return hn::Or(a, b);
  }
};

struct Bxor {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V apply(D, V a, V b) {
    return hn::Xor(a, b);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#endif  // include guard
