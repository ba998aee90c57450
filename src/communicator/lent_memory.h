// LentMemory: what the user has lent to the library until further notice (segments of commMemAlloc,
// and ranges that commRegister or commWindowRegister named), and for the duration of an operation
// (its buffers).
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "transports/user_memory.h"

namespace libcomm {

class LentMemory final : public UserMemory {
 public:
  // `key` tells registrations apart; several may hold the same memory.
  void add(const void* key, void* base, size_t bytes);
  void remove(const void* key);
  // For one operation; the result is for remove_brief().
  uint64_t add_brief(std::byte* base, size_t bytes);
  void remove_brief(uint64_t id);

  bool find(const void* address, size_t bytes, Range* range) const override;
  bool is_live(uint64_t id) const override;
  uint64_t ended() const override;

 private:
  mutable std::mutex mutex_;
  std::map<const void*, Range> ranges_;  // by key
  std::vector<Range> brief_;
  uint64_t last_id_ = 0;
  std::atomic<uint64_t> removed_{0};
};

}  // namespace libcomm
