// A launch on the host: the threads of the grid one after the other.
//
// Right for kernels whose threads do not wait for each other: all of the library's but the
// executor.
#pragma once

#include "src/device/kernels/platform.h"

namespace libcomm::cuda {

template <class Thread>
void for_all_threads(unsigned grid, unsigned block, const Thread& thread) {
  for (unsigned b = 0; b < grid; ++b)
    for (unsigned t = 0; t < block; ++t) thread(Place{b, grid, t, block});
}

}  // namespace libcomm::cuda
