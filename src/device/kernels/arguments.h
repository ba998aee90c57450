// What the kernels for GPUs are told: one plain struct per launch, passed by value.
//
// Compiled by the host compiler and by nvcc; a launch may carry 4 KiB.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/reduce/types.h"

namespace libcomm::cuda {

inline constexpr int kMaxSources = 64;
inline constexpr int kMaxDestinations = 64;
inline constexpr int kMaxSegments = 64;
inline constexpr size_t kMaxArgumentBytes = 4096;
inline constexpr int kNoSource = -1, kEverySource = -2;

// Every destination becomes finish(sources[0] op sources[1] op ...), element by element, combined
// in the order of the sources: the bits that find_reduce_kernel's kernels (src/reduce/reduce.h)
// give. Arrays are aligned to their elements, in any way to each other. A destination may equal a
// source; apart from that no destination overlaps another array.
struct ReduceArguments {
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  int divisor = 1;                // as in ReduceArgs
  int scaled_source = kNoSource;  // multiplied by its scalar first, rounded to `type`
  size_t count = 0;               // elements
  int source_count = 0;           // 1 to kMaxSources; 1 without division and scalar copies bits
  int destination_count = 0;      // 1 to kMaxDestinations
  const void* sources[kMaxSources] = {};
  void* destinations[kMaxDestinations] = {};
  uint64_t scalars[kMaxSources] = {};  // the bits of one element of `type`, in the low bytes
};
static_assert(sizeof(ReduceArguments) <= kMaxArgumentBytes);

// Bytes of any alignment. `to` may equal `from`, which leaves them; they do not overlap partly.
struct CopySegment {
  const void* from = nullptr;
  void* to = nullptr;
  size_t bytes = 0;
};

struct CopyArguments {
  int segment_count = 0;  // 1 to kMaxSegments
  CopySegment segments[kMaxSegments];
};
static_assert(sizeof(CopyArguments) <= kMaxArgumentBytes);

// Where late kernels find their arguments, in pinned memory. All zero, or with a count of zero:
// they do nothing.
struct LateArguments {
  ReduceArguments reduction;
  CopyArguments copies;
};

}  // namespace libcomm::cuda
