// Where memory is, as the CUDA driver sees it, and the driver's objects as ones that end by
// themselves.
#pragma once

#include <cstddef>
#include <utility>

#include "src/device/driver.h"

namespace libcomm::cuda {

// Whose memory an address is. Pinned host memory is the host's.
struct MemoryPlace {
  enum class Kind { kHost, kGpu, kManaged };
  Kind kind = Kind::kHost;
  int ordinal = -1;    // of the GPU
  bool known = false;  // to the driver: pinned, managed or GPU memory
};
MemoryPlace place_of(const Driver& driver, const void* address);

// Whether this process can read the byte there. A system call; for addresses that the driver does
// not know, such as freed GPU memory, which has the look of host memory.
bool can_read(const void* address);

// The context that owns the memory, or the primary one of its GPU.
Result<CUcontext> context_of(const Driver& driver, const void* address);

// Pinned host memory that every GPU reaches at the same address. Made and freed with a context
// current.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& from) noexcept { *this = std::move(from); }
  PinnedBuffer& operator=(PinnedBuffer&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(data_, from.data_);
    std::swap(bytes_, from.bytes_);
    return *this;
  }
  ~PinnedBuffer() { free(); }
  // kUnhandledCuda: no memory.
  static Result<PinnedBuffer> allocate(const Driver& driver, size_t bytes);
  void free();
  // Leaves the memory to the process: the GPU may still use it.
  void leak() { data_ = nullptr; }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t size() const { return bytes_; }

 private:
  const Driver* driver_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// An event without timing.
class Event {
 public:
  Event() = default;
  Event(Event&& from) noexcept { *this = std::move(from); }
  Event& operator=(Event&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(event_, from.event_);
    return *this;
  }
  ~Event() {
    if (event_ != nullptr) (void)driver_->event_destroy(event_);
  }
  static Result<Event> create(const Driver& driver);
  CUevent get() const { return event_; }

 private:
  const Driver* driver_ = nullptr;
  CUevent event_ = nullptr;
};

}  // namespace libcomm::cuda
