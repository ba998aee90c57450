// The places in memory that timed calls take in turns.
#pragma once

#include <algorithm>
#include <cstddef>

namespace peers {

constexpr size_t kPage = 4096;

constexpr size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Calls rotate through up to four buffers within this much memory, so that small and middle sizes
// do not always meet the same cache lines; what is larger is out of cache anyway.
class Rotation {
 public:
  explicit constexpr Rotation(size_t bytes)
      : stride_(whole_pages(bytes)),
        places_(std::clamp<size_t>(kMemory / std::max(stride_, kPage), 1, kMost)) {}

  constexpr size_t places() const { return places_; }
  // From one place to the next.
  constexpr size_t stride() const { return stride_; }
  // What a buffer must have.
  constexpr size_t bytes() const { return places_ * stride_; }

 private:
  static constexpr size_t kMost = 4;
  static constexpr size_t kMemory = size_t{32} << 20;

  size_t stride_;
  size_t places_;
};

// Where the calls of a loop are: next() is the offset of the next one's place.
class Turn {
 public:
  explicit Turn(const Rotation& rotation) : rotation_(rotation) {}
  size_t next() {
    const size_t place = place_;
    if (++place_ == rotation_.places()) place_ = 0;
    return place * rotation_.stride();
  }

 private:
  const Rotation rotation_;
  size_t place_ = 0;
};

}  // namespace peers
