// The arithmetic of limits' all-reduce floor, with the widest instructions of this machine.
#pragma once

#include <cstddef>

namespace peers {

// x = y = a + b.
void sum_to_both(const float* a, const float* b, float* x, float* y, size_t count);
// The same with stores that bypass the caches, so that lines are not read before they are written.
// All pointers at the start of a cache line, `count` in whole ones.
void sum_to_both_streaming(const float* a, const float* b, float* x, float* y, size_t count);

}  // namespace peers
