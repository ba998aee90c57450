#include "src/device/allocations.h"

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/device/address_range.h"
#include "src/device/memory.h"
#include "src/device/scopes.h"

namespace libcomm::cuda {
namespace {

struct Allocation {
  const Driver* driver;
  CUcontext context;
  CUdeviceptr base;                     // as the driver knows it
  std::shared_ptr<AddressRange> range;  // null: of cuMemAlloc
};

struct Allocations {
  ForkMutex mutex;
  std::map<void*, Allocation> live;
};

Allocations& allocations() {
  static Allocations* const instance = new Allocations;  // threads may outlive main()
  return *instance;
}

// An address that is there already is of a context that has been destroyed.
void* add(CUdeviceptr begin, Allocation made) {
  Allocations& all = allocations();
  const std::lock_guard lock(all.mutex);
  all.live.insert_or_assign(pointer_of(begin), std::move(made));
  return pointer_of(begin);
}

Status failed(const Driver& driver, CUresult result, size_t bytes) {
  CUdevice device = -1;
  (void)driver.context_device(&device);
  const std::string what = fmt::format("commMemAlloc of {} bytes on GPU {}", bytes, device);
  return driver.check(result, what.c_str());
}

// The GPU itself, and those that reach it.
std::vector<CUdevice> gpus_that_reach(const Driver& driver, CUdevice device) {
  std::vector<CUdevice> gpus{device};
  int count = 0;
  (void)driver.device_count(&count);
  for (CUdevice other = 0; other < count; ++other) {
    int can = 0;
    if (other != device && driver.can_access_peer(&can, other, device) == kSuccess && can != 0)
      gpus.push_back(other);
  }
  return gpus;
}

// Null: the GPU has none of that kind, or cannot have it here.
std::shared_ptr<AddressRange> alloc_chunk(const Driver& driver, size_t bytes) {
  CUdevice device = -1;
  if (driver.context_device(&device) != kSuccess || !has_shareable_chunks(driver, device))
    return nullptr;
  int gpu_direct = 0;
  (void)driver.device_attribute(&gpu_direct, kGpuDirectOfVirtualMemory, device);
  AddressRange range;
  const CUresult result = AddressRange::allocate(driver, device, bytes, gpu_direct != 0,
                                                 gpus_that_reach(driver, device), &range);
  // Such as in a container that forbids the descriptors.
  if (result != kSuccess) return nullptr;
  return std::make_shared<AddressRange>(std::move(range));
}

}  // namespace

Result<void*> alloc_on_current_gpu(const Driver& driver, size_t bytes) {
  CUcontext const context = current_context(driver);
  if (context == nullptr) return nullptr;
  const OutsideCapture outside(driver);
  if (auto range = alloc_chunk(driver, bytes); range != nullptr) {
    const CUdeviceptr at = range->base();
    return add(at, {&driver, context, at, std::move(range)});
  }
  const auto allocate = [&](size_t wanted, CUdeviceptr* base) -> Status {
    const CUresult result = driver.memory_alloc(base, wanted);
    return result == kSuccess ? Status::ok() : failed(driver, result, bytes);
  };
  CUdeviceptr base = 0;
  COMM_TRY(allocate(bytes, &base));
  CUdeviceptr begin = base;
  if (base % kAllocationAlignment != 0) {  // small allocations lie as close as 256 bytes
    (void)driver.memory_free(base);
    COMM_TRY(allocate(bytes + kAllocationAlignment - 1, &base));
    begin = (base + kAllocationAlignment - 1) / kAllocationAlignment * kAllocationAlignment;
  }
  return add(begin, {&driver, context, base, nullptr});
}

Result<bool> free_allocation(void* pointer) {
  Allocation gone{};
  {
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    const auto found = all.live.find(pointer);
    if (found == all.live.end()) return false;
    gone = std::move(found->second);
    all.live.erase(found);
  }
  const ContextScope scope(*gone.driver, gone.context);
  COMM_TRY(scope.status());
  const OutsideCapture outside(*gone.driver);
  if (gone.range != nullptr) {
    // A program may free what its last kernel still uses: cuMemFree waits for the GPU, cuMemUnmap
    // need not, and cuCtxSynchronize would end a capture. So something else is freed first.
    CUdeviceptr other = 0;
    if (gone.driver->memory_alloc(&other, 1) == kSuccess) (void)gone.driver->memory_free(other);
    gone.range.reset();
    return true;
  }
  COMM_TRY(gone.driver->check(gone.driver->memory_free(gone.base), "commMemFree: cuMemFree"));
  return true;
}

}  // namespace libcomm::cuda
