#include "src/device/address_range.h"

#include <vector>

namespace libcomm::cuda {

bool has_shareable_chunks(const Driver& driver, CUdevice device) {
  int manages = 0, exports = 0;
  return driver.device_attribute(&manages, kVirtualMemory, device) == kSuccess && manages != 0 &&
         driver.device_attribute(&exports, kDescriptorHandles, device) == kSuccess && exports != 0;
}

AddressRange::~AddressRange() {
  if (base_ == 0) return;
  for (const auto& [offset, bytes] : mapped_) (void)driver_->chunk_unmap(base_ + offset, bytes);
  (void)driver_->address_free(base_, bytes_);
}

CUresult AddressRange::allocate(const Driver& driver, CUdevice device, size_t bytes,
                                bool gpu_direct, std::span<const CUdevice> gpus,
                                AddressRange* made) {
  CUmemAllocationProp wanted{};
  wanted.type = kPinnedChunk;
  wanted.handle_types = kDescriptorHandle;
  wanted.location = {kOnDevice, device};
  wanted.gpu_direct_rdma = gpu_direct ? 1 : 0;
  size_t granularity = 0;
  CUresult result = driver.chunk_granularity(&granularity, &wanted, kLeastGranularity);
  if (result != kSuccess) return result;
  if (granularity == 0 || bytes > SIZE_MAX - granularity) return kInvalidValue;
  const size_t whole = (bytes + granularity - 1) / granularity * granularity;
  CUmemHandle handle = 0;
  result = driver.chunk_create(&handle, whole, &wanted, 0);
  if (result != kSuccess) return result;
  const ChunkHandle chunk(driver, handle);
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
