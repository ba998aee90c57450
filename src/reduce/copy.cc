// copy_bytes: memcpy, and a version whose stores go around the caches.
#include "src/reduce/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/reduce/copy.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once per instruction set.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "src/reduce/reduce.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void stream_copy(uint8_t* dst, const uint8_t* src, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t step = hn::Lanes(d);
  constexpr size_t kLine = 64;
  const size_t head = (kLine - reinterpret_cast<uintptr_t>(dst) % kLine) % kLine;
  std::memcpy(dst, src, head);
  size_t at = head;
  // Whole lines, one after the other: a line that is written in part costs a read of memory.
  for (; at + kLine <= bytes; at += kLine) {
    for (size_t i = 0; i < kLine; i += step) {
      hn::Stream(hn::LoadU(d, src + at + i), d, dst + at + i);
    }
  }
  hwy::FlushStream();
  std::memcpy(dst + at, src + at, bytes - at);
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace libcomm {

HWY_EXPORT(stream_copy);

namespace {
// Below this the flush at the end and the lost lines cost more than the caches gain.
constexpr size_t kStreamFrom = 4096;
}  // namespace

void copy_bytes(void* dst, const void* src, size_t bytes, bool stream) {
  if (bytes == 0) return;
  if (!stream || bytes < kStreamFrom) {
    std::memcpy(dst, src, bytes);
    return;
  }
  HWY_DYNAMIC_DISPATCH(stream_copy)
  (static_cast<uint8_t*>(dst), static_cast<const uint8_t*>(src), bytes);
}

}  // namespace libcomm
#endif  // HWY_ONCE
