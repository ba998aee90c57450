// CudaMemory: GPU memory as the CUDA driver of this process knows it.
//
// The driver is used only where the program has loaded it, and is never initialised from here.
#pragma once

#include <memory>

#include "transports/device_memory.h"

namespace libcomm {

class CudaMemory {
 public:
  // Null while the process has not loaded libcuda.so.1, or has one without the calls that are
  // needed (CUDA 11.7 has them).
  static std::shared_ptr<const DeviceMemory> of_this_process();
};

}  // namespace libcomm
