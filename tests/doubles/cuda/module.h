// Modules, their functions, and the kernels that are registered under the functions' names.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "tests/doubles/cuda/stream.h"

namespace libcomm::cuda::doubled {

struct Kernel {
  std::string name;
  size_t argument_bytes = 0;
  void (*run)(const void* arguments, unsigned grid, unsigned block) = nullptr;
  std::atomic<uint64_t> launches{0};
};

struct Module {
  Context* context = nullptr;
};

struct Function {
  std::shared_ptr<Module> module;
  std::shared_ptr<Kernel> kernel;
};

}  // namespace libcomm::cuda::doubled
