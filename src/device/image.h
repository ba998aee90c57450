// The kernels as the driver takes them: what nvcc made of src/device/kernels, inside the library.
#pragma once

#include <cstddef>

namespace libcomm::cuda {

struct KernelImage {
  const void* data;
  size_t size;
  // The version of nvcc and the architectures: "nvcc 13.0 for 75 80 90"; null where the build had
  // no nvcc: the image is then a module without kernels.
  const char* made_by;
};

KernelImage kernel_image();

}  // namespace libcomm::cuda
