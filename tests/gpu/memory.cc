#include "tests/gpu/memory.h"

#include <algorithm>
#include <vector>

#include "tests/gpu/gpu.h"

namespace gpu {
namespace {

class Mirrored final : public matrix::GpuMemory {
 public:
  ~Mirrored() override {
    for (const Pair& pair : pairs_) {
      free_pinned(pair.host);
      gpu::free(pair.device);
    }
  }
  unsigned char* allocate(size_t bytes) override {
    Pair pair{static_cast<unsigned char*>(allocate_pinned(bytes)),
              static_cast<unsigned char*>(gpu::allocate(bytes)), bytes};
    pairs_.push_back(pair);
    return pair.host;
  }
  unsigned char* on_gpu(unsigned char* ordinary) override {
    for (const Pair& pair : pairs_)
      if (ordinary >= pair.host && ordinary < pair.host + pair.bytes)
        return pair.device + (ordinary - pair.host);
    throw Failed("no memory of the GPU stands behind a buffer");
  }
  void upload(cudaStream_t stream) override {
    for (const Pair& pair : pairs_) copy(pair.device, pair.host, pair.bytes, stream);
  }
  void download(cudaStream_t stream) override {
    for (const Pair& pair : pairs_) copy(pair.host, pair.device, pair.bytes, stream);
    synchronise(stream);
  }

 private:
  struct Pair {
    unsigned char* host;
    unsigned char* device;
    size_t bytes;
  };
  std::vector<Pair> pairs_;
};

}  // namespace

std::unique_ptr<matrix::GpuMemory> make_memory() { return std::make_unique<Mirrored>(); }

Floats::Floats(size_t count)
    : count_(count),
      device_(static_cast<float*>(allocate(count * sizeof(float)))),
      set_(static_cast<float*>(allocate_pinned(count * sizeof(float)))),
      taken_(static_cast<float*>(allocate_pinned(count * sizeof(float)))) {}

Floats::~Floats() {
  gpu::free(device_);
  free_pinned(set_);
  free_pinned(taken_);
}

void Floats::set(float value, void* stream) {
  std::fill(set_, set_ + count_, value);
  copy(device_, set_, count_ * sizeof(float), stream);
}

void Floats::take(void* stream) { copy(taken_, device_, count_ * sizeof(float), stream); }

bool Floats::all(float value) const {
  return std::all_of(taken_, taken_ + count_, [&](float each) { return each == value; });
}

}  // namespace gpu
