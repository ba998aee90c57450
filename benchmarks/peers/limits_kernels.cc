#include "benchmarks/peers/limits_kernels.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/peers/limits_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace peers {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void cached(const float* a, const float* b, float* x, float* y, size_t count) {
  const hn::ScalableTag<float> tag;
  size_t i = 0;
  for (; i + hn::Lanes(tag) <= count; i += hn::Lanes(tag)) {
    const auto sum = hn::Add(hn::LoadU(tag, a + i), hn::LoadU(tag, b + i));
    hn::StoreU(sum, tag, x + i);
    hn::StoreU(sum, tag, y + i);
  }
  for (; i < count; ++i) x[i] = y[i] = a[i] + b[i];
}

void streaming(const float* a, const float* b, float* x, float* y, size_t count) {
  const hn::ScalableTag<float> tag;
  for (size_t i = 0; i < count; i += hn::Lanes(tag)) {
    const auto sum = hn::Add(hn::Load(tag, a + i), hn::Load(tag, b + i));
    hn::Stream(sum, tag, x + i);
    hn::Stream(sum, tag, y + i);
  }
  hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace peers
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace peers {

HWY_EXPORT(cached);
HWY_EXPORT(streaming);

void sum_to_both(const float* a, const float* b, float* x, float* y, size_t count) {
  HWY_DYNAMIC_DISPATCH(cached)(a, b, x, y, count);
}

void sum_to_both_streaming(const float* a, const float* b, float* x, float* y, size_t count) {
  HWY_DYNAMIC_DISPATCH(streaming)(a, b, x, y, count);
}

}  // namespace peers
#endif
