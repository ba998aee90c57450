// Every call that the double exports, with the parameters that the library and the tests call it
// with.
#pragma once

#include "tests/doubles/cuda/application.h"

#define EXPORT __attribute__((visibility("default")))

namespace libcomm::cuda::doubled {

extern "C" {
#define CUDA_CALL(member, symbol, ...) EXPORT CUresult symbol(__VA_ARGS__);
#include "src/device/driver_calls.def"
#include "tests/doubles/cuda/application_calls.def"
#undef CUDA_CALL
}

}  // namespace libcomm::cuda::doubled
