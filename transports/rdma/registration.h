// Registrations of user memory, kept for as long as the memory is the user's to lend.
//
// Only memory whose end the library hears of is registered: what commMemAlloc gave out until
// commMemFree, and what commRegister named until commDeregister. Other memory could be unmapped and
// mapped anew behind our back; it goes through staging slots.
//
// Invalidation: every such range has a number that is never used again, and the registrations are
// found by address but believed only while the list of live ranges has not changed. When it has,
// the ranges that are gone lose their registrations here. A segment that is still being sent or
// received holds its own reference, so a device never uses a key that was given back. Until then
// the kernel keeps the pages: a late write lands in pages that are nobody's, never in another
// mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "transports/rdma/nic.h"
#include "transports/user_memory.h"

namespace libcomm::rdma {

struct Registration {
  uint64_t id = 0;
  std::byte* base = nullptr;
  size_t bytes = 0;
  std::vector<Mr> mrs;  // by rail
  uint32_t lkey(int rail) const { return mrs[static_cast<size_t>(rail)]->lkey; }
  uint32_t rkey(int rail) const { return mrs[static_cast<size_t>(rail)]->rkey; }
};

class RegistrationCache {
 public:
  // `memory` may be null: then nothing is registered.
  RegistrationCache(std::vector<std::shared_ptr<Nic>> nics,
                    std::shared_ptr<const UserMemory> memory)
      : nics_(std::move(nics)), memory_(std::move(memory)) {}

  // Null when this memory cannot be used in place.
  std::shared_ptr<const Registration> find(const void* address, size_t bytes);

  uint64_t hits() const;
  uint64_t misses() const;
  size_t held() const;  // ranges that are registered

 private:
  void drop_ended();
  std::shared_ptr<const Registration> add(const UserMemory::Range& range);

  const std::vector<std::shared_ptr<Nic>> nics_;
  const std::shared_ptr<const UserMemory> memory_;
  mutable std::mutex mutex_;
  // Disjoint intervals by their first address.
  std::map<const std::byte*, std::shared_ptr<const Registration>> intervals_;
  std::set<uint64_t> unregistrable_;  // ranges that a device refused
  uint64_t ended_ = 0;                // of the ranges, when intervals_ was true
  uint64_t hits_ = 0, misses_ = 0;
};

}  // namespace libcomm::rdma
