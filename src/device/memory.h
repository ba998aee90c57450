// Where memory is, as the CUDA driver sees it, and the driver's objects as ones that end by
// themselves.
#pragma once

#include <cstddef>
#include <functional>
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

// False when this process cannot read the byte there. A system call; for addresses that the driver
// does not know, such as freed GPU memory, which has the look of host memory.
bool can_read(const void* address);

// The context that is current in this thread; null: none.
CUcontext current_context(const Driver& driver);
// The context that owns the memory, or the primary one of its GPU.
CUresult find_context(const Driver& driver, const void* address, CUcontext* context);

// Pinned host memory that every GPU reaches at the same address. When it ends it goes to what the
// process has to spare, which calls nothing: freeing it waits for all that the GPU does, and the
// GPU may be waiting for another rank of this thread.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& from) noexcept { *this = std::move(from); }
  PinnedBuffer& operator=(PinnedBuffer&& from) noexcept {
    std::swap(context_, from.context_);
    std::swap(data_, from.data_);
    std::swap(bytes_, from.bytes_);
    return *this;
  }
  ~PinnedBuffer() { spare(); }
  // At least so many bytes; with `context` current. kUnhandledCuda: no memory.
  static Result<PinnedBuffer> take(const Driver& driver, CUcontext context, size_t bytes);
  // Any thread, a host function's too.
  void spare() noexcept;

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t size() const { return bytes_; }

  // Frees what is to spare, and ends what was left to end_when_idle(), unless some rank of the
  // process waits for others in a stream, or may do so for a graph.
  static void free_spare(const Driver& driver);

 private:
  CUcontext context_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory of a GPU. When it ends it is left to end_when_idle(), for the same reason.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& from) noexcept { *this = std::move(from); }
  DeviceBuffer& operator=(DeviceBuffer&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(context_, from.context_);
    std::swap(at_, from.at_);
    std::swap(bytes_, from.bytes_);
    return *this;
  }
  ~DeviceBuffer();
  // Of the GPU of `context`. kUnhandledCuda: no memory.
  static Result<DeviceBuffer> allocate(const Driver& driver, CUcontext context, size_t bytes);

  std::byte* data() const { return static_cast<std::byte*>(pointer_of(at_)); }
  size_t size() const { return bytes_; }

 private:
  const Driver* driver_ = nullptr;
  CUcontext context_ = nullptr;
  CUdeviceptr at_ = 0;
  size_t bytes_ = 0;
};

// Counts what waits for other ranks in streams of this process.
class PendingWork {
 public:
  // Not while spare memory is being freed.
  static void begin();
  // The same in a host function, which must not wait.
  static void begin_in_host_function() noexcept;
  static void end() noexcept;
  // There is a graph with such work, which begins whenever the graph comes to it. Not while spare
  // memory is being freed.
  static void graph_made();
  static void graph_gone() noexcept;
};

// For what the driver may only end while it waits for all that the GPU does, as it may with mapped
// memory and modules: `end` is called when it may wait, with no context current, or never. Any
// thread; calls nothing of the driver.
enum class Ending { kWithCommunicators, kSoon };  // by free_spare(); by end_stale() too
void end_when_idle(Ending when, std::function<void()> end) noexcept;
// Ends what is to end soon, unless some rank of the process waits for others in a stream, or may do
// so for a graph.
void end_stale(const Driver& driver);

// An event without timing. Ended with its context current.
class Event {
 public:
  Event() = default;
  Event(Event&& from) noexcept { *this = std::move(from); }
  Event& operator=(Event&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(event_, from.event_);
    return *this;
  }
  ~Event() { end(); }
  static Result<Event> create(const Driver& driver);
  CUevent get() const { return event_; }
  void end() {
    if (event_ != nullptr) (void)driver_->event_destroy(std::exchange(event_, nullptr));
  }

 private:
  const Driver* driver_ = nullptr;
  CUevent event_ = nullptr;
};

}  // namespace libcomm::cuda
