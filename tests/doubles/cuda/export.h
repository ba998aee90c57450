// Device memory as a descriptor, for cuMemGetHandleForAddressRange and for other doubles.
#pragma once

#include <cstddef>

namespace libcomm::cuda::doubled {

struct State;

// With the lock. The descriptor's offset says where the range begins; -1: no device memory.
int export_memory(State& state, const void* pointer, size_t bytes);

}  // namespace libcomm::cuda::doubled
