// What runs kernels in these tests: the step code directly on host memory, or Kernels over a
// driver.
#pragma once

#include <cstddef>
#include <memory>

#include "src/base/status.h"
#include "src/device/kernels/arguments.h"

namespace libcomm::cuda::test {

class Machine {
 public:
  virtual ~Machine() = default;
  // At least 256-byte aligned; freed with the machine.
  virtual std::byte* alloc(size_t bytes) = 0;
  virtual void write(void* to, const void* from, size_t bytes) = 0;
  virtual void read(void* to, const void* from, size_t bytes) = 0;
  // Returns when the result is there.
  virtual Status reduce(const ReduceArguments& arguments) = 0;
  virtual Status copy(const CopyArguments& arguments) = 0;
};

// A launch of `grid` blocks of `block` threads each, whatever the size.
std::unique_ptr<Machine> host_machine(unsigned grid, unsigned block);

}  // namespace libcomm::cuda::test
