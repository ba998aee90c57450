// UserMemory: the memory of the user that a transport may register with a device, because the
// library hears when it ends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace libcomm {

// The live ranges, as who knows them tells. Any thread.
class UserMemory {
 public:
  struct Range {
    uint64_t id = 0;  // never used again
    std::byte* base = nullptr;
    size_t bytes = 0;
    bool brief = false;  // lent for one operation only, and not by the user's wish
  };
  virtual ~UserMemory() = default;
  // A range that holds all of [address, address + bytes); one that is not brief, if there is any.
  virtual bool find(const void* address, size_t bytes, Range* range) const = 0;
  virtual bool is_live(uint64_t id) const = 0;
  // Grows whenever a range ends.
  virtual uint64_t ended() const = 0;
};

}  // namespace libcomm
