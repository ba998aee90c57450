#include "src/device/memory.h"

#include <sys/uio.h>
#include <unistd.h>

namespace libcomm::cuda {

MemoryPlace place_of(const Driver& driver, const void* address) {
  MemoryPlace place;
  unsigned type = 0;
  if (driver.pointer_get(&type, kAttributeMemoryType, number_of(address)) != kSuccess) return place;
  place.known = true;
  unsigned managed = 0;
  const bool is_managed =
      driver.pointer_get(&managed, kAttributeIsManaged, number_of(address)) == kSuccess &&
      managed != 0;
  if (type != kTypeDevice && !is_managed) return place;
  place.kind = is_managed ? MemoryPlace::Kind::kManaged : MemoryPlace::Kind::kGpu;
  int ordinal = -1;
  if (driver.pointer_get(&ordinal, kAttributeOrdinal, number_of(address)) == kSuccess)
    place.ordinal = ordinal;
  return place;
}

bool can_read(const void* address) {
  char byte = 0;
  const iovec to{&byte, 1};
  const iovec from{const_cast<void*>(address), 1};
  return ::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) == 1;
}

Result<CUcontext> context_of(const Driver& driver, const void* address) {
  CUcontext context = nullptr;
  if (driver.pointer_get(&context, kAttributeContext, number_of(address)) == kSuccess &&
      context != nullptr)
    return context;
  // Memory of cuMemCreate and of pools has no context of its own: that of its GPU does.
  CUdevice device = 0;
  COMM_TRY(driver.check(driver.device_get(&device, place_of(driver, address).ordinal),
                        "finding the GPU of a buffer"));
  COMM_TRY(driver.check(driver.primary_retain(&context, device), "cuDevicePrimaryCtxRetain"));
  return context;
}

Result<PinnedBuffer> PinnedBuffer::allocate(const Driver& driver, size_t bytes) {
  PinnedBuffer buffer;
  if (CUresult made = driver.host_alloc(&buffer.data_, bytes, kPortable | kDeviceMap);
      made != kSuccess)
    return driver.check(made, "cannot allocate pinned host memory");
  buffer.driver_ = &driver;
  buffer.bytes_ = bytes;
  return buffer;
}

void PinnedBuffer::free() {
  if (data_ != nullptr) (void)driver_->host_free(std::exchange(data_, nullptr));
}

Result<Event> Event::create(const Driver& driver) {
  Event event;
  COMM_TRY(driver.check(driver.event_create(&event.event_, kEventNoTiming), "cuEventCreate"));
  event.driver_ = &driver;
  return event;
}

}  // namespace libcomm::cuda
