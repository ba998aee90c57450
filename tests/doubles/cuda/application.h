// Application: the calls of the driver that a program makes and the library does not, for tests
// that play the program.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "src/device/driver.h"

namespace libcomm::cuda {

using CUgraphExec = void*;

// CUresult: those that the library has no name for.
inline constexpr CUresult kInvalidDevice = 101, kMapFailed = 205, kIllegalState = 401,
                          kNotFound = 500, kAlreadyRegistered = 712, kNotRegistered = 713,
                          kCaptureMerge = 902, kCaptureUnmatched = 903, kCaptureUnjoined = 904,
                          kCaptureImplicit = 906, kCapturedEvent = 907, kCaptureWrongThread = 908;

struct Application {
#define CUDA_CALL(member, symbol, ...) CUresult (*member)(__VA_ARGS__) = nullptr;
#include "tests/doubles/cuda/application_calls.def"
#undef CUDA_CALL

  // `library` is what dlopen gave for libcuda.so.1; one that lacks a call ends the process.
  static Application in(void* library) {
    Application all;
    const auto look = [&](const char* name, auto* function) {
      void* symbol = ::dlsym(library, name);
      if (symbol == nullptr) std::abort();
      std::memcpy(function, &symbol, sizeof symbol);
    };
#define CUDA_CALL(member, symbol, ...) look(#symbol, &all.member);
#include "tests/doubles/cuda/application_calls.def"
#undef CUDA_CALL
    return all;
  }
};

}  // namespace libcomm::cuda
