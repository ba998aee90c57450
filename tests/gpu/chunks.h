// Virtual memory of a GPU as programs make it that grow their allocations (PyTorch's expandable
// segments): addresses first, and chunks of cuMemCreate mapped there one by one.
#pragma once

#include <cstddef>
#include <vector>

namespace gpu {

class Chunks {
 public:
  static constexpr size_t kBytes = size_t{2} << 20;  // of each

  // On the GPU that is current, with room for `most`; `shared`: other processes may get
  // descriptors.
  Chunks(int ordinal, size_t most, bool shared = true);
  ~Chunks();
  Chunks(const Chunks&) = delete;
  Chunks& operator=(const Chunks&) = delete;

  void* data() const;
  void map(size_t index);
  void unmap(size_t index);

 private:
  const int ordinal_;
  const size_t most_;
  const bool shared_;
  unsigned long long base_ = 0;
  std::vector<bool> mapped_;
};

}  // namespace gpu
