// The image that nvcc made, taken in by the assembler.
#include "src/device/image.h"

// clang-format off
asm(".section .rodata\n"
    ".balign 64\n"
    ".hidden libcomm_kernel_image\n"
    ".global libcomm_kernel_image\n"
    "libcomm_kernel_image:\n"
    ".incbin \"" COMM_KERNEL_IMAGE "\"\n"
    ".hidden libcomm_kernel_image_end\n"
    ".global libcomm_kernel_image_end\n"
    "libcomm_kernel_image_end:\n"
    ".byte 0\n"
    ".text\n");
// clang-format on

extern "C" const char libcomm_kernel_image[];
extern "C" const char libcomm_kernel_image_end[];

namespace libcomm::cuda {

KernelImage kernel_image() {
  return {libcomm_kernel_image,
          static_cast<size_t>(libcomm_kernel_image_end - libcomm_kernel_image),
          COMM_KERNEL_IMAGE_MADE_BY};
}

}  // namespace libcomm::cuda
