#include "src/api/current_gpu.h"

#include <string>

#include "src/device/memory.h"

namespace libcomm {

using cuda::Driver;

cuda::CUcontext current_context() {
  const Driver* driver = Driver::find();
  return driver == nullptr ? nullptr : cuda::current_context(*driver);
}

CurrentGpu::CurrentGpu(cuda::CUcontext context)
    : pushed_(context != nullptr && Driver::found()->context_push(context) == cuda::kSuccess) {}

CurrentGpu::~CurrentGpu() {
  cuda::CUcontext popped = nullptr;
  if (pushed_) (void)Driver::found()->context_pop(&popped);
}

Result<PrimaryContext> PrimaryContext::of(int ordinal) {
  PrimaryContext primary;
  const Driver* driver = Driver::find();
  int gpus = 0;
  if (driver == nullptr || driver->device_count(&gpus) != cuda::kSuccess || ordinal >= gpus)
    return primary;
  cuda::CUdevice device = -1;
  COMM_TRY(driver->check(driver->device_get(&device, ordinal), "cuDeviceGet"));
  const std::string what = "cannot use GPU " + std::to_string(ordinal);
  COMM_TRY(driver->check(driver->primary_retain(&primary.context_, device), what.c_str()));
  primary.device_ = device;
  return primary;
}

PrimaryContext::~PrimaryContext() {
  if (context_ != nullptr) (void)Driver::found()->primary_release(device_);
}

}  // namespace libcomm
