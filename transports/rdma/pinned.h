// Pinned memory of the library itself: rings and slots, registered on every rail of a channel.
//
// A forked child does not get this memory (MADV_DONTFORK): a page that both had would be copied on
// the next write, and the device would go on writing into the wrong one.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "transports/rdma/nic.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {

// Shared by a transport and its channels; any thread.
struct Counters {
  std::atomic<size_t> pinned_bytes{0};
  std::atomic<int> channels{0};
  std::atomic<int> queue_pairs{0};
  std::atomic<int> sockets{0};
};

class PinnedMemory {
 public:
  // Zeroed and page-aligned. `data`: payload only (Nic::register_memory).
  static Result<std::unique_ptr<PinnedMemory>> create(
      const std::vector<std::shared_ptr<Nic>>& rails, size_t bytes, bool data,
      std::shared_ptr<Counters> counters);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  uint32_t lkey(int rail) const { return mrs_[static_cast<size_t>(rail)]->lkey; }
  uint32_t rkey(int rail) const { return mrs_[static_cast<size_t>(rail)]->rkey; }
  MemoryWire wire() const;

 private:
  PinnedMemory(std::byte* data, size_t bytes, std::shared_ptr<Counters> counters)
      : data_(data), bytes_(bytes), counters_(std::move(counters)) {}
  std::byte* const data_;
  const size_t bytes_;
  const std::shared_ptr<Counters> counters_;
  std::vector<Mr> mrs_;  // by rail
};

// What the channels of one peer may pin beyond what each cannot do without; any thread.
class PinBudget {
 public:
  explicit PinBudget(size_t bytes) : left_(bytes) {}
  bool try_take(size_t bytes) {
    size_t left = left_;
    while (left >= bytes)
      if (left_.compare_exchange_weak(left, left - bytes)) return true;
    return false;
  }
  void give_back(size_t bytes) { left_ += bytes; }

 private:
  std::atomic<size_t> left_;
};

}  // namespace libcomm::rdma
