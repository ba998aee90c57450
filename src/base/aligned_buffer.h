// AlignedBuffer: working memory that starts on a cache line and only grows; its contents are not
// kept.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "src/base/status.h"

namespace libcomm {

class AlignedBuffer {
 public:
  // At least `bytes`, uninitialised; what was there is lost when it grows. kSystem when there is no
  // memory.
  Status reserve(size_t bytes) {
    if (bytes <= size_) return Status::ok();
    constexpr size_t kLine = 64;
    const size_t rounded = (bytes + kLine - 1) / kLine * kLine;
    data_.reset();
    size_ = 0;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kLine, rounded)));
    if (!data_)
      return error(Code::kSystem, "cannot allocate {} bytes of working memory: out of memory",
                   rounded);
    size_ = rounded;
    return Status::ok();
  }
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

}  // namespace libcomm
