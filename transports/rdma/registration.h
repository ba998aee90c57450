// Registrations of user memory, kept for as long as the memory is the user's to lend.
//
// Only memory whose end the library hears of is registered: what commMemAlloc gave out until
// commMemFree, what commRegister named until commDeregister, and the buffers of an operation until
// it is over. Plain memory is not kept registered between operations: it could be unmapped and
// mapped anew behind our back, and no user-level hook sees every way of doing so.
//
// Invalidation: every such range has a number that is never used again, and the registrations are
// found by address but believed only while the list of live ranges has not changed. When it has,
// the ranges that are gone lose their registrations here, at the latest before the next look-up. A
// segment that is still being sent or received holds its own reference, so a device never uses a
// key that was given back. Until then the kernel keeps the pages: a late write lands in pages that
// are nobody's, never in another mapping.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "transports/rdma/gpu_direct.h"
#include "transports/rdma/nic.h"
#include "transports/user_memory.h"

namespace libcomm::rdma {

struct Registration {
  uint64_t id = 0;
  std::byte* base = nullptr;
  size_t bytes = 0;
  std::vector<Mr> mrs;       // by rail
  bool on_device = false;    // GPU memory
  bool needs_flush = false;  // see Flush
  // Where its bytes count, if it is of a brief range.
  std::shared_ptr<std::atomic<size_t>> counted;

  Registration() = default;
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration() {
    if (counted) *counted -= bytes;
  }
  bool holds(const std::byte* begin, size_t length) const {
    return begin >= base && length <= bytes &&
           begin - base <= static_cast<ptrdiff_t>(bytes - length);
  }
  uint32_t lkey(int rail) const { return mrs[static_cast<size_t>(rail)]->lkey; }
  uint32_t rkey(int rail) const { return mrs[static_cast<size_t>(rail)]->rkey; }
};

// What a device is to do with memory.
enum class Use { kSend, kReceive };

class RegistrationCache {
 public:
  // `memory` may be null: then nothing is registered. `most_brief`: bytes of brief ranges that may
  // be registered at a time. `gpu` may be null: then all memory is host memory.
  RegistrationCache(std::vector<std::shared_ptr<Nic>> nics,
                    std::shared_ptr<const UserMemory> memory, size_t most_brief,
                    std::shared_ptr<GpuDirect> gpu = nullptr)
      : nics_(std::move(nics)),
        memory_(std::move(memory)),
        most_brief_(most_brief),
        gpu_(std::move(gpu)) {}

  // Null when this memory cannot be used in place.
  std::shared_ptr<const Registration> find(const void* address, size_t bytes, Use use);
  // Gives back the registrations of ranges that have ended.
  void drop_ended();

  uint64_t hits() const;
  uint64_t misses() const;
  size_t held() const;                                  // ranges that are registered
  size_t brief_bytes() const { return *brief_bytes_; }  // of brief ranges

 private:
  using Held = std::shared_ptr<const Registration>;
  Held find_any(const void* address, size_t bytes);
  Status make(const UserMemory::Range& range, Registration* made);
  Held look_up(const std::byte* begin, size_t bytes) const;
  void drop_ended_locked();
  Held add(const UserMemory::Range& range);

  const std::vector<std::shared_ptr<Nic>> nics_;
  const std::shared_ptr<const UserMemory> memory_;
  const size_t most_brief_;
  const std::shared_ptr<GpuDirect> gpu_;
  const std::shared_ptr<std::atomic<size_t>> brief_bytes_ =
      std::make_shared<std::atomic<size_t>>(0);
  mutable std::mutex mutex_;
  // Intervals by their first address; they may overlap. None is longer than longest_.
  std::multimap<const std::byte*, Held> intervals_;
  size_t longest_ = 0;
  std::set<uint64_t> unregistrable_;  // ranges that a device refused
  bool warned_ = false;               // that a brief or a GPU's was
  uint64_t ended_ = 0;                // of the ranges, when intervals_ was true
  uint64_t hits_ = 0, misses_ = 0;
};

// How many bytes of brief ranges this process may register where the user allows `wanted`: none
// where the kernel limits what it may lock, since channels need that for themselves.
size_t brief_limit(size_t wanted);

}  // namespace libcomm::rdma
