// commMemAlloc's segments: a process-wide registry of memory that peers on the host can map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "src/base/status.h"

namespace libcomm {

struct SegmentRef {
  uint64_t segment = 0;  // number of the segment in its process, from 1, never reused
  uint64_t offset = 0;
};

// Page-aligned, zeroed, backed by a memfd. kInvalidArgument for 0 bytes; kSystem names the limit
// that was hit and the remedy.
Result<void*> segment_alloc(size_t bytes);
// kInvalidArgument when ptr is not the start of a live segment.
Status segment_free(void* ptr);
// The segment that holds all of [ptr, ptr + bytes), if one does. Fast: one atomic load when the
// process has no segments, no lock while none comes or goes.
std::optional<SegmentRef> find_segment(const void* ptr, size_t bytes);
// The descriptor behind a segment and its size; -1 when it is gone. For the shm transport.
int segment_fd(uint64_t segment, size_t* bytes);
// Where a segment lies in this process and its size; nullptr when it is gone.
std::byte* segment_address(uint64_t segment, size_t* bytes);
// How many segments have been freed so far: when it is unchanged, so is what was alive.
uint64_t segments_freed();

}  // namespace libcomm
