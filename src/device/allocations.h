// GPU memory that commMemAlloc has given: whose it is, and from where, so that it can be freed in
// any thread and is told from other memory.
#pragma once

#include <cstddef>

#include "src/device/driver.h"

namespace libcomm::cuda {

// Where windows and pages begin.
inline constexpr size_t kAllocationAlignment = 4096;

// Memory of the GPU that is current in this thread, at a multiple of kAllocationAlignment; null
// when none is current. Where the GPU has chunks for it, memory that other processes reach by file
// descriptors, and by fabric handles where these work, and that all GPUs of this process reach that
// can. kUnhandledCuda: no memory.
Result<void*> alloc_on_current_gpu(const Driver& driver, size_t bytes);
// Frees what alloc_on_current_gpu() gave. False: the pointer is none of these. kUnhandledCuda: the
// driver has forgotten it, as after a reset of the GPU; it is forgotten here too.
Result<bool> free_allocation(void* pointer);

}  // namespace libcomm::cuda
