// GPU memory for the matrix of collectives (tests/collectives/call.h).
#pragma once

#include <memory>

#include "tests/collectives/call.h"
#include "tests/gpu/gpu.h"

namespace gpu {

// In the context that is current.
std::unique_ptr<matrix::GpuMemory> make_memory();

// A few elements on the GPU, filled and read through pinned memory.
class Floats {
 public:
  explicit Floats(size_t count);
  ~Floats();
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;

  float* on_gpu() const { return device_; }
  size_t count() const { return count_; }
  // Put on the stream: all elements become `value`; the elements are taken to look at.
  void set(float value, void* stream);
  void take(void* stream);
  // After take() and a wait for the stream: whether all are `value`.
  bool all(float value) const;

 private:
  size_t count_;
  float* device_;
  float* set_;  // pinned
  float* taken_;
};

inline cudaStream_t of(Stream stream) { return static_cast<cudaStream_t>(stream); }

// An all-reduce in place.
inline commResult_t sum(Floats& data, comm_t comm, Stream stream) {
  return commAllReduce(data.on_gpu(), data.on_gpu(), data.count(), commFloat, commSum, comm,
                       of(stream));
}

}  // namespace gpu

#define NEED_GPU() \
  if (gpu::count() == 0) GTEST_SKIP() << "no GPU here: cuInit finds none"
