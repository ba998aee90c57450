// ProgramMemory: pinned memory for the programs of DeviceCalls, taken once, in pieces of one size.
//
// To pin memory may wait for all that the GPUs of the process do, and a kernel of one rank may be
// waiting for the very call of another rank of the process that wants memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "src/base/status.h"
#include "src/device/memory.h"

namespace libcomm {

class ProgramMemory : public std::enable_shared_from_this<ProgramMemory> {
 public:
  // Goes back when it ends. Any thread, also one in which the driver must not be called.
  class Piece {
   public:
    Piece() = default;
    Piece(Piece&& from) noexcept { *this = std::move(from); }
    Piece& operator=(Piece&& from) noexcept {
      std::swap(memory_, from.memory_);
      std::swap(index_, from.index_);
      return *this;
    }
    ~Piece();
    std::byte* data() const { return memory_->pinned_.data() + index_ * memory_->bytes_; }
    explicit operator bool() const { return memory_ != nullptr; }

   private:
    friend class ProgramMemory;
    std::shared_ptr<ProgramMemory> memory_;
    size_t index_ = 0;
  };

  // `count` pieces of `bytes`, a multiple of 16. With `context` current, outside captures.
  // kUnhandledCuda: no memory.
  static Result<std::shared_ptr<ProgramMemory>> create(const cuda::Driver& driver,
                                                       cuda::CUcontext context, size_t bytes,
                                                       size_t count);
  // None when all are in use.
  Piece take();
  size_t piece_bytes() const { return bytes_; }
  size_t pinned_bytes() const { return pinned_.size(); }

 private:
  ProgramMemory(size_t bytes, size_t count)
      : bytes_(bytes), count_(count), used_(new std::atomic<bool>[count]()) {}

  const size_t bytes_;
  const size_t count_;
  cuda::PinnedBuffer pinned_;
  const std::unique_ptr<std::atomic<bool>[]> used_;
};

}  // namespace libcomm
