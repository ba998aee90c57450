#include "transports/shm/peek.h"

#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>

namespace libcomm::shm {

Status read_process(int64_t pid, void* dst, uint64_t address, size_t bytes) {
  auto* to = static_cast<std::byte*>(dst);
  while (bytes > 0) {
    iovec local{to, bytes};
    iovec remote{reinterpret_cast<void*>(address), bytes};
    const ssize_t got = ::process_vm_readv(static_cast<pid_t>(pid), &local, 1, &remote, 1, 0);
    if (got <= 0) {
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == ESRCH) return error(Code::kRemote, "process {} is gone", pid);
      return system_error(
          got < 0 ? errno : EFAULT,
          fmt::format("reading {} bytes of process {}'s memory at {:#x}, which the kernel does for "
                      "plain memory and not for a device's; COMM_CMA_DISABLE=1 on all ranks copies "
                      "them through shared memory",
                      bytes, pid, address));
    }
    to += got;
    address += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return Status::ok();
}

}  // namespace libcomm::shm
