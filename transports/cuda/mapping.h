// MappedMemory: an allocation of another process's GPU memory, mapped into this one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "src/base/status.h"
#include "src/device/driver.h"

namespace libcomm::cuda {

// GPU memory as its process tells others of it. Part of wire structs.
struct ExportedMemory {
  uint64_t address = 0;     // there
  uint64_t base = 0;        // of the allocation, or of the addresses in which chunks are mapped
  uint64_t bytes = 0;       // the same
  uint64_t id = 0;          // of the allocation, which no later one of that process has; see below
  CUipcMemHandle handle{};  // all zero where no other process needs it
  CUmemFabricHandle fabric{};  // of the one chunk that has it all; all zero: none
};
static_assert(sizeof(ExportedMemory) == 160);

// Memory of chunks (cuMemCreate's) has this as its id, and this in place of a handle.
inline constexpr uint64_t kOfChunks = ~uint64_t{0};
struct ChunkSpan {
  uint64_t end = 0;     // of what is used: [address, end)
  uint64_t stamp = 0;   // of the chunks there: changes with any of them
  uint64_t newest = 0;  // the highest number of a chunk there: later ones have higher numbers
  uint64_t chunk_base = 0, chunk_bytes = 0;  // of the chunk whose fabric handle goes with it
};
static_assert(sizeof(ChunkSpan) <= sizeof(CUipcMemHandle));
// The ways in which chunks get into other processes.
struct ChunkWays {
  bool descriptors = true, fabric = true;
};
inline bool is_set(const CUmemFabricHandle& handle) {
  return std::any_of(std::begin(handle.data), std::end(handle.data),
                     [](unsigned char each) { return each != 0; });
}
// What `later` tells of is no other memory than was at these addresses when `first` was told of, a
// range that has them all.
bool is_still_there(const ExportedMemory& first, const ExportedMemory& later);

class MappedMemory {
 public:
  MappedMemory() = default;
  MappedMemory(MappedMemory&& from) noexcept { *this = std::move(from); }
  MappedMemory& operator=(MappedMemory&& from) noexcept {
    std::swap(context_, from.context_);
    std::swap(driver_, from.driver_);
    std::swap(at_, from.at_);
    std::swap(bytes_, from.bytes_);
    std::swap(id_, from.id_);
    return *this;
  }
  // Left to end_when_idle(), since the driver may wait for the GPU.
  ~MappedMemory();
  // With `context` current. kUnhandledCuda.
  static Result<MappedMemory> open(const Driver& driver, CUcontext context,
                                   const ExportedMemory& memory);

  // Whether this is that allocation, and not an earlier one that was at its place.
  bool is_of(const ExportedMemory& memory) const {
    return at_ != 0 && id_ == memory.id && bytes_ == memory.bytes;
  }
  std::byte* data() const { return static_cast<std::byte*>(pointer_of(at_)); }
  uint64_t bytes() const { return bytes_; }

 private:
  const Driver* driver_ = nullptr;
  CUcontext context_ = nullptr;
  CUdeviceptr at_ = 0;
  uint64_t bytes_ = 0;
  uint64_t id_ = 0;
};

}  // namespace libcomm::cuda
