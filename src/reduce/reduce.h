// Reduction kernels: dst = a op b op c ..., element by element, on host memory.
//
// One kernel per (type, operator), with run-time choice of the instruction set (Highway). The bits
// of the result depend on the type, the operator and the order of the sources only: never on the
// instruction set, the alignment or the position in the buffer. Sources are combined from first to
// last. 16- and 8-bit floats are widened to fp32 once, combined in fp32 and rounded once, to
// nearest even, when there are several sources (IEEE overflow: inf for fp16, bf16 and e5m2; e4m3
// has no inf and gives NaN above 464, 448 up to it). Integers wrap. Max and min of floats: a NaN in
// either operand gives NaN, +0 is greater than -0. A NaN in a result is always the type's one
// positive quiet NaN without payload (0x7E for e5m2, 0x7F for e4m3); a copy keeps its bits.
#pragma once

#include <cstddef>

#include "src/reduce/types.h"

namespace libcomm {

struct ReduceArgs {
  void* dst = nullptr;
  // A second place for the same result (a send slot beside the user's buffer), or null.
  void* dst2 = nullptr;
  const void* const* sources = nullptr;  // `source_count` arrays of `count` elements; dst and dst2
                                         // may equal any of them, but not overlap one partially
  int source_count = 0;                  // at least 1; 1 is a copy (with the division, if any)
  size_t count = 0;                      // elements
  // Divides the result (the average over this many ranks); at least 1, which leaves it. Floats: a
  // true division in fp32 (fp64 for fp64) before the one rounding. Integers: division that
  // truncates towards zero.
  int divisor = 1;
  // The destination is large and will not be read soon: use non-temporal stores where they pay.
  bool stream_dst = false;
  bool stream_dst2 = false;
};

using ReduceKernel = void (*)(const ReduceArgs& args);

// Never null when is_defined(op, type). Any alignment of the arrays is accepted.
ReduceKernel find_reduce_kernel(DataType type, ReduceOp op);

// dst[i] = src[i] * *scalar (one element of `type`), rounded once; dst may equal src.
void scale_elements(void* dst, const void* src, size_t count, DataType type, const void* scalar);

// From here on an output is not going to be in the cache when the caller reads it.
inline constexpr size_t kStreamBytes = size_t{16} << 20;
// memcpy, with non-temporal stores when `stream` says that dst will not be read soon.
void copy_bytes(void* dst, const void* src, size_t bytes, bool stream);

}  // namespace libcomm
