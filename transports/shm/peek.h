// Peek: reading the plain memory of another process on this host, in one copy by the kernel
// (process_vm_readv(2)). Works where the two may trace each other: containers and hardened hosts
// often forbid it, so nobody relies on it before a trial between the actual processes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/base/status.h"

namespace libcomm::shm {

// kRemote when the process is gone, kSystem when it may not be read or the address is not its, or
// of memory that only its own process reads (a device's, mapped by a driver): names the remedy.
Status read_process(int64_t pid, void* dst, uint64_t address, size_t bytes);

}  // namespace libcomm::shm
