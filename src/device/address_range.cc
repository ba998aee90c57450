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

Result<AddressRange> AddressRange::reserve(const Driver& driver, size_t bytes) {
  AddressRange range;
  CUdeviceptr base = 0;
  COMM_TRY(driver.check(driver.address_reserve(&base, bytes, 0, 0, 0), "cuMemAddressReserve"));
  range.driver_ = &driver;
  range.base_ = base;
  range.bytes_ = bytes;
  return range;
}

Status AddressRange::map(size_t offset, size_t bytes, CUmemHandle chunk,
                         std::span<const CUdevice> gpus) {
  const CUdeviceptr at = base_ + offset;
  COMM_TRY(driver_->check(driver_->chunk_map(at, bytes, 0, chunk, 0), "cuMemMap"));
  std::vector<CUmemAccessDesc> allowed;
  for (const CUdevice gpu : gpus) allowed.push_back({{kOnDevice, gpu}, kReadWrite});
  if (const CUresult result = driver_->chunk_allow(at, bytes, allowed.data(), allowed.size());
      result != kSuccess) {
    (void)driver_->chunk_unmap(at, bytes);
    return driver_->check(result, "cuMemSetAccess");
  }
  mapped_[offset] = bytes;
  return Status::ok();
}

}  // namespace libcomm::cuda
