// GPU memory for tests: the double of the CUDA driver, opened as a program would have opened it.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/doubles/cuda/control.h"

namespace libcomm::test {

class CudaDouble {
 public:
  CudaDouble() : library_(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {}
  bool here() const { return library_ != nullptr && find("cuda_double_alloc") != nullptr; }

  std::byte* alloc(size_t bytes, int ordinal = 0) const {
    return static_cast<std::byte*>(
        call<void* (*)(size_t, int)>("cuda_double_alloc")(bytes, ordinal));
  }
  void free(void* pointer) const { call<void (*)(void*)>("cuda_double_free")(pointer); }
  void write(void* pointer, const void* from, size_t bytes) const {
    call<void (*)(void*, const void*, size_t)>("cuda_double_write")(pointer, from, bytes);
  }
  void read(void* to, const void* pointer, size_t bytes) const {
    call<void (*)(void*, const void*, size_t)>("cuda_double_read")(to, pointer, bytes);
  }
  void set(const char* what, int value) const {
    call<void (*)(const char*, int)>("cuda_double_set")(what, value);
  }
  // Between GPU and host memory.
  uint64_t copies() const {
    const auto count = call<uint64_t (*)(const char*)>("cuda_double_count");
    return count("d2h") + count("h2d");
  }

 private:
  void* find(const char* name) const { return ::dlsym(library_, name); }
  template <typename Function>
  Function call(const char* name) const {
    return reinterpret_cast<Function>(find(name));
  }
  void* library_;
};

}  // namespace libcomm::test
