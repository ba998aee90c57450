// Kernels on the double of the CUDA driver.
#pragma once

#include "src/device/kernels.h"
#include "tests/device/machine.h"

namespace libcomm::cuda::test {

// The context of the first GPU is current in this thread while the machine lives. Launches have at
// most `max_ctas` blocks.
std::unique_ptr<Machine> double_machine(int max_ctas);

}  // namespace libcomm::cuda::test
