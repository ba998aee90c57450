// Which GPU is current while a communicator is made: it then belongs to that GPU.
#pragma once

#include <utility>

#include "src/base/status.h"
#include "src/device/driver.h"

namespace libcomm {

// The CUDA context that is current in this thread; null: none.
cuda::CUcontext current_context();

// Makes a context current in this thread for as long as this lives. Null, or one that has been
// destroyed: changes nothing.
class CurrentGpu {
 public:
  explicit CurrentGpu(cuda::CUcontext context);
  ~CurrentGpu();
  CurrentGpu(const CurrentGpu&) = delete;
  CurrentGpu& operator=(const CurrentGpu&) = delete;

 private:
  const bool pushed_;
};

// A use of the primary context of a GPU, the context of programs that use CUDA's runtime.
class PrimaryContext {
 public:
  // Null when this process has no GPU of that number. kUnhandledCuda: it cannot be used.
  static Result<PrimaryContext> of(int ordinal);
  PrimaryContext(PrimaryContext&& from) noexcept
      : context_(std::exchange(from.context_, nullptr)), device_(from.device_) {}
  PrimaryContext& operator=(PrimaryContext&&) = delete;
  ~PrimaryContext();
  cuda::CUcontext get() const { return context_; }

 private:
  PrimaryContext() = default;

  cuda::CUcontext context_ = nullptr;
  cuda::CUdevice device_ = -1;
};

}  // namespace libcomm
