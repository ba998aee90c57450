// AddressRange: addresses of GPU memory, and the chunks of memory (cuMemCreate's) that are mapped
// there. Allocations of commMemAlloc are such ranges, and so is what a process maps of another's.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <utility>

#include "src/device/driver.h"

namespace libcomm::cuda {

// Whether the GPU has chunks that can be given to other processes as file descriptors.
bool has_shareable_chunks(const Driver& driver, CUdevice device);

// Whether chunks of the GPU can have fabric handles beside descriptors: those are 64 bytes with
// which whoever may use the same IMEX channel imports them, on other hosts of the NVLink fabric
// too. So it is where all GPUs here say so and a chunk could be made, exported and imported again,
// which is tried once per process and GPU. Any thread, outside captures.
bool has_fabric_handles(const Driver& driver, CUdevice device);

class AddressRange {
 public:
  AddressRange() = default;
  AddressRange(AddressRange&& from) noexcept { *this = std::move(from); }
  AddressRange& operator=(AddressRange&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(base_, from.base_);
    std::swap(bytes_, from.bytes_);
    std::swap(mapped_, from.mapped_);
    return *this;
  }
  // The driver may wait for all that the GPU does with what is mapped.
  ~AddressRange();

  // A new chunk of this GPU that other processes can reach by a descriptor, and by a fabric handle
  // where has_fabric_handles(), of at least `bytes`, for these GPUs to read and write. What the
  // driver answered to what did not work.
  static CUresult allocate(const Driver& driver, CUdevice device, size_t bytes, bool gpu_direct,
                           std::span<const CUdevice> gpus, AddressRange* made);
  // Addresses without memory; `bytes` is a multiple of the granularity of chunks. kUnhandledCuda.
  static Result<AddressRange> reserve(const Driver& driver, size_t bytes);
  // Puts the whole chunk, which it takes a share of, at `offset`, for these GPUs to read and write.
  // kUnhandledCuda; then nothing is there.
  Status map(size_t offset, size_t bytes, CUmemHandle chunk, std::span<const CUdevice> gpus) {
    return driver_->check(try_to_map(offset, bytes, chunk, gpus),
                          "cannot map a chunk of GPU memory (cuMemMap, cuMemSetAccess)");
  }

  CUdeviceptr base() const { return base_; }
  size_t bytes() const { return bytes_; }

 private:
  AddressRange(const Driver& driver, CUdeviceptr base, size_t bytes)
      : driver_(&driver), base_(base), bytes_(bytes) {}
  CUresult try_to_map(size_t offset, size_t bytes, CUmemHandle chunk,
                      std::span<const CUdevice> gpus);

  const Driver* driver_ = nullptr;
  CUdeviceptr base_ = 0;
  size_t bytes_ = 0;
  std::map<size_t, size_t> mapped_;  // bytes, by offset
};

// A share of a chunk, by its handle.
class ChunkHandle {
 public:
  ChunkHandle() = default;
  ChunkHandle(const Driver& driver, CUmemHandle handle) : driver_(&driver), handle_(handle) {}
  ChunkHandle(ChunkHandle&& from) noexcept { *this = std::move(from); }
  ChunkHandle& operator=(ChunkHandle&& from) noexcept {
    std::swap(driver_, from.driver_);
    std::swap(handle_, from.handle_);
    return *this;
  }
  ~ChunkHandle() {
    if (driver_ != nullptr) (void)driver_->chunk_release(handle_);
  }
  CUmemHandle get() const { return handle_; }

 private:
  const Driver* driver_ = nullptr;
  CUmemHandle handle_ = 0;
};

}  // namespace libcomm::cuda
