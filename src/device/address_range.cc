#include "src/device/address_range.h"

#include <array>
#include <atomic>
#include <vector>

#include "src/base/log.h"

namespace libcomm::cuda {
namespace {

// A chunk of at least `bytes` that is exported in these ways.
CUresult create_chunk(const Driver& driver, CUdevice device, size_t bytes, int handle_types,
                      bool gpu_direct, ChunkHandle* chunk, size_t* whole) {
  CUmemAllocationProp wanted{};
  wanted.type = kPinnedChunk;
  wanted.handle_types = handle_types;
  wanted.location = {kOnDevice, device};
  wanted.gpu_direct_rdma = gpu_direct ? 1 : 0;
  size_t granularity = 0;
  CUresult result = driver.chunk_granularity(&granularity, &wanted, kLeastGranularity);
  if (result != kSuccess) return result;
  if (granularity == 0 || bytes > SIZE_MAX - granularity) return kInvalidValue;
  *whole = (bytes + granularity - 1) / granularity * granularity;
  CUmemHandle handle = 0;
  result = driver.chunk_create(&handle, *whole, &wanted, 0);
  if (result == kSuccess) *chunk = ChunkHandle(driver, handle);
  return result;
}

// What is made on one GPU may be mapped by any.
bool all_say_fabric(const Driver& driver) {
  int count = 0;
  if (driver.device_count(&count) != kSuccess) return false;
  for (CUdevice gpu = 0; gpu < count; ++gpu) {
    int has = 0;
    if (driver.device_attribute(&has, kFabricHandles, gpu) != kSuccess || has == 0) return false;
  }
  return count > 0;
}

// Without an IMEX channel the driver refuses it (CUDA_ERROR_NOT_PERMITTED).
CUresult try_fabric(const Driver& driver, CUdevice device) {
  ChunkHandle chunk;
  size_t whole = 0;
  CUresult result =
      create_chunk(driver, device, 1, kDescriptorHandle | kFabricHandle, false, &chunk, &whole);
  if (result != kSuccess) return result;
  CUmemFabricHandle fabric{};
  result = driver.chunk_export(&fabric, chunk.get(), kFabricHandle, 0);
  if (result != kSuccess) return result;
  CUmemHandle again = 0;
  result = driver.chunk_import(&again, &fabric, kFabricHandle);
  if (result == kSuccess) (void)driver.chunk_release(again);
  return result;
}

}  // namespace

bool has_shareable_chunks(const Driver& driver, CUdevice device) {
  int manages = 0, exports = 0;
  return driver.device_attribute(&manages, kVirtualMemory, device) == kSuccess && manages != 0 &&
         driver.device_attribute(&exports, kDescriptorHandles, device) == kSuccess && exports != 0;
}

bool has_fabric_handles(const Driver& driver, CUdevice device) {
  if (!all_say_fabric(driver)) return false;
  enum Tried : int { kNotYet, kRefused, kWork };
  static std::array<std::atomic<int>, 64> tried{};
  const auto index = static_cast<size_t>(device);
  if (device < 0 || index >= tried.size()) return false;
  if (const int before = tried[index].load(std::memory_order_relaxed); before != kNotYet)
    return before == kWork;
  const Status status = driver.check(try_fabric(driver, device), "the trial of fabric handles");
  if (!status)
    log_info(Subsys::kInit, "GPU {}: its memory is shared without fabric handles: {}", device,
             status.message());
  tried[index].store(status ? kWork : kRefused, std::memory_order_relaxed);
  return status.is_ok();
}

AddressRange::~AddressRange() {
  if (base_ == 0) return;
  for (const auto& [offset, bytes] : mapped_) (void)driver_->chunk_unmap(base_ + offset, bytes);
  (void)driver_->address_free(base_, bytes_);
}

CUresult AddressRange::allocate(const Driver& driver, CUdevice device, size_t bytes,
                                bool gpu_direct, std::span<const CUdevice> gpus,
                                AddressRange* made) {
  ChunkHandle chunk;
  size_t whole = 0;
  CUresult result = kNotSupported;
  if (has_fabric_handles(driver, device))
    result = create_chunk(driver, device, bytes, kDescriptorHandle | kFabricHandle, gpu_direct,
                          &chunk, &whole);
  if (result != kSuccess)
    result = create_chunk(driver, device, bytes, kDescriptorHandle, gpu_direct, &chunk, &whole);
  if (result != kSuccess) return result;
  CUdeviceptr base = 0;
  result = driver.address_reserve(&base, whole, 0, 0, 0);
  if (result != kSuccess) return result;
  AddressRange range(driver, base, whole);
  result = range.try_to_map(0, whole, chunk.get(), gpus);
  if (result == kSuccess) *made = std::move(range);
  return result;
}

Result<AddressRange> AddressRange::reserve(const Driver& driver, size_t bytes) {
  CUdeviceptr base = 0;
  COMM_TRY(driver.check(driver.address_reserve(&base, bytes, 0, 0, 0), "cuMemAddressReserve"));
  return AddressRange(driver, base, bytes);
}

CUresult AddressRange::try_to_map(size_t offset, size_t bytes, CUmemHandle chunk,
                                  std::span<const CUdevice> gpus) {
  const CUdeviceptr at = base_ + offset;
  if (const CUresult result = driver_->chunk_map(at, bytes, 0, chunk, 0); result != kSuccess)
    return result;
  std::vector<CUmemAccessDesc> allowed;
  for (const CUdevice gpu : gpus) allowed.push_back({{kOnDevice, gpu}, kReadWrite});
  const CUresult result = driver_->chunk_allow(at, bytes, allowed.data(), allowed.size());
  if (result == kSuccess)
    mapped_[offset] = bytes;
  else
    (void)driver_->chunk_unmap(at, bytes);
  return result;
}

}  // namespace libcomm::cuda
