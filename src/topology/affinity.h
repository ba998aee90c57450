// The kernel's CPU affinity of the calling thread, as plain lists of CPU numbers.
//
// A binding that the library made itself is not a restriction that someone imposed on the process:
// the next communicator of a bound thread must still see every core. So the thread remembers what
// it was allowed before; a later change from outside makes it forget.
#pragma once

#include <span>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

// The CPUs that the calling thread may use, or might use before bind_calling_thread() narrowed
// them.
Result<std::vector<int>> imposed_affinity();

// kSystem when the kernel refuses, for instance because the cgroup allows none of `cpus`.
Status bind_calling_thread(std::span<const int> cpus);

}  // namespace libcomm
