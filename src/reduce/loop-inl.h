// The loop that all kernels share: read a block of every source, combine it in registers, write it
// once.
//
// Elements never meet their neighbours, so the result of an element does not depend on where in the
// buffer it is. The rest after the last whole vector goes through the same vector code with the
// missing lanes filled up, not through separate scalar code that might treat a NaN differently.
//
// Included once per instruction set, hence the guard that toggles instead of #pragma once.
#if defined(COMM_REDUCE_LOOP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMM_REDUCE_LOOP_INL_H_
#undef COMM_REDUCE_LOOP_INL_H_
#else
#define COMM_REDUCE_LOOP_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "src/reduce/formats-inl.h"
#include "src/reduce/kernels.h"
#include "src/reduce/operators-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class F>
using Lane = hn::TFromD<typename F::D>;

template <class F>
inline constexpr size_t kRawBytes = F::kLanes * sizeof(Lane<F>);

template <class F>
inline constexpr bool kIsFloat = hwy::IsFloat<hn::TFromD<typename F::WideD>>();

// Buffers are addressed in bytes: they may have any alignment.
template <class F>
HWY_INLINE typename F::Raw load(const uint8_t* from) {
  return hn::LoadU(typename F::D(), reinterpret_cast<const Lane<F>*>(from));
}

template <class F>
HWY_INLINE void store(typename F::Raw raw, uint8_t* to) {
  hn::StoreU(raw, typename F::D(), reinterpret_cast<Lane<F>*>(to));
}

// The first `lanes` lanes, 0 < lanes < F::kLanes, without touching memory beyond; the others are
// zero.
template <class F>
HWY_INLINE typename F::Raw load_some(const uint8_t* from, size_t lanes) {
  const typename F::D d;
#if HWY_TARGET <= HWY_AVX3
  return hn::MaskedLoad(hn::FirstN(d, lanes), d, reinterpret_cast<const Lane<F>*>(from));
#else
  HWY_ALIGN Lane<F> buffer[F::kLanes] = {};
  std::memcpy(buffer, from, lanes * sizeof(Lane<F>));
  return hn::Load(d, buffer);
#endif
}

template <class F>
HWY_INLINE void store_some(typename F::Raw raw, uint8_t* to, size_t lanes) {
  const typename F::D d;
#if HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(raw, hn::FirstN(d, lanes), d, reinterpret_cast<Lane<F>*>(to));
#else
  HWY_ALIGN Lane<F> buffer[F::kLanes];
  hn::Store(raw, d, buffer);
  std::memcpy(to, buffer, lanes * sizeof(Lane<F>));
#endif
}

template <class F, class Op>
HWY_INLINE void combine(typename F::Wide& into, const typename F::Wide& with) {
  for (int p = 0; p < F::Wide::kParts; ++p) {
    into.part[p] = Op::apply(typename F::WideD(), into.part[p], with.part[p]);
  }
}

// The division of an average. A power of two divides by an exact multiplication: the same bits,
// sooner.
template <class F>
struct Divider {
  using T = hn::TFromD<typename F::WideD>;

  explicit HWY_INLINE Divider(int by)
      : active(by != 1),
        exact((by & (by - 1)) == 0),
        factor(exact ? T{1} / static_cast<T>(by) : static_cast<T>(by)) {}

  HWY_INLINE void apply(typename F::Wide& wide) const {
    if (!active) return;
    const auto v = hn::Set(typename F::WideD(), factor);
    for (int p = 0; p < F::Wide::kParts; ++p) {
      wide.part[p] = exact ? hn::Mul(wide.part[p], v) : hn::Div(wide.part[p], v);
    }
  }

  bool active;
  bool exact;
  T factor;
};

// Integers are divided after the reduction, see integer_kernels.cc.
struct NoDivider {
  explicit HWY_INLINE NoDivider(int) {}
  template <class Wide>
  HWY_INLINE void apply(Wide&) const {}
};

template <class F>
using DividerOf = std::conditional_t<kIsFloat<F>, Divider<F>, NoDivider>;

// Fewer elements than a vector holds, at byte offset `at`.
template <class F, class Op>
HWY_NOINLINE void reduce_some(const ReduceArgs& args, size_t at, size_t lanes) {
  const auto source = [&](int s)
                          HWY_ATTR { return static_cast<const uint8_t*>(args.sources[s]) + at; };
  typename F::Wide sum = F::decode(load_some<F>(source(0), lanes));
  for (int s = 1; s < args.source_count; ++s) {
    combine<F, Op>(sum, F::decode(load_some<F>(source(s), lanes)));
  }
  DividerOf<F>(args.divisor).apply(sum);
  const typename F::Raw raw = F::encode(sum);
  store_some<F>(raw, static_cast<uint8_t*>(args.dst) + at, lanes);
  if (args.dst2 != nullptr) store_some<F>(raw, static_cast<uint8_t*>(args.dst2) + at, lanes);
}

// How many elements to do before the streamed destination is aligned for non-temporal stores, and
// which destinations may use them. They must not be a vector's part, and pay for large arrays only.
struct StreamPlan {
  size_t head = 0;
  bool dst = false;
  bool dst2 = false;
};

template <class F>
HWY_INLINE StreamPlan plan_streaming(const ReduceArgs& args) {
  constexpr size_t kStreamFrom = 4096;
  constexpr size_t kRaw = kRawBytes<F>;
  StreamPlan plan;
  const bool wanted = args.stream_dst || (args.stream_dst2 && args.dst2 != nullptr);
  if (kRaw < HWY_STREAM_MULTIPLE || !wanted || args.count * sizeof(Lane<F>) < kStreamFrom)
    return plan;
  const auto dst = reinterpret_cast<uintptr_t>(args.dst);
  const auto dst2 = reinterpret_cast<uintptr_t>(args.dst2);
  const size_t head = (kRaw - (args.stream_dst ? dst : dst2) % kRaw) % kRaw;
  if (head % sizeof(Lane<F>) != 0) return plan;  // elements straddle the alignment
  plan.head = head / sizeof(Lane<F>);
  plan.dst = args.stream_dst;
  plan.dst2 = args.stream_dst2 && args.dst2 != nullptr && (dst2 + head) % kRaw == 0;
  return plan;
}

// kSources 0: as many as args says. kPlain: one destination, no division, ordinary stores.
template <class F, class Op, int kSources, bool kPlain>
HWY_NOINLINE void reduce_loop(const ReduceArgs& args) {
  constexpr int kUnroll = F::kUnroll;
  constexpr size_t kRaw = kRawBytes<F>;
  constexpr size_t kBlock = kUnroll * kRaw;
  const int source_count = kSources != 0 ? kSources : args.source_count;
  const uint8_t* fixed[kSources != 0 ? kSources : 1];
  HWY_UNROLL(4)
  for (int s = 0; s < kSources; ++s) fixed[s] = static_cast<const uint8_t*>(args.sources[s]);
  const auto source = [&](int s) HWY_ATTR {
    return kSources != 0 ? fixed[s] : static_cast<const uint8_t*>(args.sources[s]);
  };
  uint8_t* const dst = static_cast<uint8_t*>(args.dst);
  uint8_t* const dst2 = static_cast<uint8_t*>(args.dst2);
  const DividerOf<F> divider(kPlain ? 1 : args.divisor);
  const StreamPlan stream = kPlain ? StreamPlan() : plan_streaming<F>(args);

  const auto write = [&](const typename F::Wide& sum, size_t at) HWY_ATTR {
    if constexpr (kPlain) {
      store<F>(F::encode(sum), dst + at);
    } else {
      const typename F::Raw raw = F::encode(sum);
      const typename F::D d;
      if (stream.dst) {
        hn::Stream(raw, d, reinterpret_cast<Lane<F>*>(dst + at));
      } else {
        store<F>(raw, dst + at);
      }
      if (stream.dst2) {
        hn::Stream(raw, d, reinterpret_cast<Lane<F>*>(dst2 + at));
      } else if (dst2 != nullptr) {
        store<F>(raw, dst2 + at);
      }
    }
  };

  const size_t bytes = args.count * sizeof(Lane<F>);
  size_t at = stream.head * sizeof(Lane<F>);
  if (at != 0) reduce_some<F, Op>(args, 0, stream.head);
  for (; at + kBlock <= bytes; at += kBlock) {
    typename F::Wide sum[kUnroll];
    const uint8_t* first = source(0) + at;
    HWY_UNROLL(4)
    for (int k = 0; k < kUnroll; ++k) sum[k] = F::decode(load<F>(first + k * kRaw));
    HWY_UNROLL(4)
    for (int s = 1; s < source_count; ++s) {
      const uint8_t* next = source(s) + at;
      HWY_UNROLL(4)
      for (int k = 0; k < kUnroll; ++k) combine<F, Op>(sum[k], F::decode(load<F>(next + k * kRaw)));
    }
    HWY_UNROLL(4)
    for (int k = 0; k < kUnroll; ++k) {
      if constexpr (!kPlain) divider.apply(sum[k]);
      write(sum[k], at + k * kRaw);
    }
  }
  for (; at + kRaw <= bytes; at += kRaw) {
    typename F::Wide sum = F::decode(load<F>(source(0) + at));
    for (int s = 1; s < source_count; ++s) combine<F, Op>(sum, F::decode(load<F>(source(s) + at)));
    if constexpr (!kPlain) divider.apply(sum);
    write(sum, at);
  }
  if (at < bytes) reduce_some<F, Op>(args, at, (bytes - at) / sizeof(Lane<F>));
  if (stream.dst || stream.dst2) hwy::FlushStream();
}

template <class F, class Op>
void reduce_kernel(const ReduceArgs& args) {
  if (args.count == 0) return;
  if (args.source_count == 1 && args.divisor == 1) return copy_source(args, sizeof(Lane<F>));
  if (args.count < F::kLanes) return reduce_some<F, Op>(args, 0, args.count);
  if constexpr (F::kUnroll > 1) {
    const bool plain =
        args.divisor == 1 && args.dst2 == nullptr && !args.stream_dst && !args.stream_dst2;
    if (plain && args.source_count == 2) return reduce_loop<F, Op, 2, true>(args);
  }
  // Sums and averages of floats are what machine learning does all day; other kernels share one
  // loop.
  if constexpr (F::kUnroll > 1 && std::is_same_v<Op, Sum> && kIsFloat<F>) {
    if (args.source_count == 2) return reduce_loop<F, Op, 2, false>(args);
    if (args.source_count == 3) return reduce_loop<F, Op, 3, false>(args);
    if (args.source_count == 4) return reduce_loop<F, Op, 4, false>(args);
  }
  reduce_loop<F, Op, 0, false>(args);
}

template <class F>
void scale_kernel(void* dst, const void* src, size_t count, const void* scalar) {
  Lane<F> lane;
  std::memcpy(&lane, scalar, sizeof(lane));
  const typename F::Wide factor = F::decode(hn::Set(typename F::D(), lane));
  const uint8_t* from = static_cast<const uint8_t*>(src);
  uint8_t* to = static_cast<uint8_t*>(dst);
  const size_t bytes = count * sizeof(Lane<F>);
  size_t at = 0;
  for (; at + kRawBytes<F> <= bytes; at += kRawBytes<F>) {
    typename F::Wide product = F::decode(load<F>(from + at));
    combine<F, Prod>(product, factor);
    store<F>(F::encode(product), to + at);
  }
  if (at < bytes) {
    const size_t lanes = (bytes - at) / sizeof(Lane<F>);
    typename F::Wide product = F::decode(load_some<F>(from + at, lanes));
    combine<F, Prod>(product, factor);
    store_some<F>(F::encode(product), to + at, lanes);
  }
}

// The kernels of a float type.
template <class F>
KernelSet float_kernel_set() {
  KernelSet set;
  set.reduce[static_cast<int>(ReduceOp::kSum)] = reduce_kernel<F, Sum>;
  set.reduce[static_cast<int>(ReduceOp::kProd)] = reduce_kernel<F, Prod>;
  set.reduce[static_cast<int>(ReduceOp::kMax)] = reduce_kernel<F, Max>;
  set.reduce[static_cast<int>(ReduceOp::kMin)] = reduce_kernel<F, Min>;
  set.scale = scale_kernel<F>;
  return set;
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#endif  // include guard
