// A page-aligned buffer with guard bytes before and behind the part in use.
//
// The guard behind begins at the very end of the part that one operation uses, not at the end of
// the allocation, so that a write of one byte too many is seen at every size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

class Buffer {
 public:
  // Where the memory comes from. allocate returns null when there is none.
  struct Source {
    void* (*allocate)(size_t bytes);
    void (*release)(void* memory);
  };
  static Source malloc_source();

  Buffer() = default;
  // Room for `capacity` bytes in use; data() is null when the memory cannot be had.
  Buffer(size_t capacity, Source source);
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  char* data() const { return memory_ == nullptr ? nullptr : memory_ + kGuardBytes; }
  size_t capacity() const { return capacity_; }
  // The whole allocation, guards included.
  char* memory() const { return memory_; }
  size_t memory_bytes() const;

  // Overwrites data()[0..used) with bytes that no result holds by chance for long, and writes the
  // guards.
  void poison(size_t used);
  // Bytes of the guards around data()[0..used) that changed since poison(used).
  size_t damaged_bytes(size_t used) const;

  static constexpr size_t kGuardBytes = 4096;  // a page, so that data() stays aligned

 private:
  char* memory_ = nullptr;
  size_t capacity_ = 0;
  Source source_{};
};

}  // namespace bench
