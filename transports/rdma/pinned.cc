#include "transports/rdma/pinned.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace libcomm::rdma {

Result<std::unique_ptr<PinnedMemory>> PinnedMemory::create(
    const std::vector<std::shared_ptr<Nic>>& rails, size_t bytes, bool data,
    std::shared_ptr<Counters> counters) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  bytes = (bytes + page - 1) / page * page;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return system_error(errno, fmt::format("{} bytes of memory for RDMA", bytes));
  (void)::madvise(memory, bytes, MADV_DONTFORK);
  std::unique_ptr<PinnedMemory> pinned(
      new PinnedMemory(static_cast<std::byte*>(memory), bytes, std::move(counters)));
  pinned->counters_->pinned_bytes += bytes;
  for (const std::shared_ptr<Nic>& nic : rails) {
    COMM_ASSIGN(Mr mr, nic->register_memory(memory, bytes, data));
    pinned->mrs_.push_back(std::move(mr));
  }
  return pinned;
}

PinnedMemory::~PinnedMemory() {
  const unsigned made_in = mrs_.empty() ? fork_generation() : mrs_.front().get_deleter().generation;
  mrs_.clear();
  counters_->pinned_bytes -= bytes_;
  if (made_in == fork_generation()) ::munmap(data_, bytes_);
}

MemoryWire PinnedMemory::wire() const {
  MemoryWire wire;
  wire.address = reinterpret_cast<uintptr_t>(data_);
  for (size_t rail = 0; rail < mrs_.size(); ++rail) wire.rkey[rail] = mrs_[rail]->rkey;
  return wire;
}

}  // namespace libcomm::rdma
