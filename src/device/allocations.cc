#include "src/device/allocations.h"

#include <map>
#include <mutex>

#include "src/base/fork_mutex.h"
#include "src/device/memory.h"
#include "src/device/scopes.h"

namespace libcomm::cuda {
namespace {

struct Allocation {
  const Driver* driver;
  CUcontext context;
  CUdeviceptr base;  // as the driver knows it
};

struct Allocations {
  ForkMutex mutex;
  std::map<void*, Allocation> live;
};

Allocations& allocations() {
  static Allocations* const instance = new Allocations;  // threads may outlive main()
  return *instance;
}

}  // namespace

Result<void*> alloc_on_current_gpu(const Driver& driver, size_t bytes) {
  CUcontext const context = current_context(driver);
  if (context == nullptr) return nullptr;
  const OutsideCapture outside(driver);
  const auto allocate = [&](size_t wanted, CUdeviceptr* base) -> Status {
    const CUresult result = driver.memory_alloc(base, wanted);
    if (result == kSuccess) return Status::ok();
    CUdevice device = -1;
    (void)driver.context_device(&device);
    const std::string what = fmt::format("commMemAlloc of {} bytes on GPU {}", bytes, device);
    return driver.check(result, what.c_str());
  };
  CUdeviceptr base = 0;
  COMM_TRY(allocate(bytes, &base));
  CUdeviceptr begin = base;
  if (base % kAllocationAlignment != 0) {  // small allocations lie as close as 256 bytes
    (void)driver.memory_free(base);
    COMM_TRY(allocate(bytes + kAllocationAlignment - 1, &base));
    begin = (base + kAllocationAlignment - 1) / kAllocationAlignment * kAllocationAlignment;
  }
  Allocations& all = allocations();
  const std::lock_guard lock(all.mutex);
  // An address that is there already is of a context that has been destroyed.
  all.live.insert_or_assign(pointer_of(begin), Allocation{&driver, context, base});
  return pointer_of(begin);
}

Result<bool> free_allocation(void* pointer) {
  Allocation gone{};
  {
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    const auto found = all.live.find(pointer);
    if (found == all.live.end()) return false;
    gone = found->second;
    all.live.erase(found);
  }
  const ContextScope scope(*gone.driver, gone.context);
  COMM_TRY(scope.status());
  const OutsideCapture outside(*gone.driver);
  COMM_TRY(gone.driver->check(gone.driver->memory_free(gone.base), "commMemFree: cuMemFree"));
  return true;
}

}  // namespace libcomm::cuda
