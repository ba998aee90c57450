#include "src/communicator/program_memory.h"

namespace libcomm {

ProgramMemory::Piece::~Piece() {
  if (memory_) memory_->used_[index_].store(false, std::memory_order_release);
}

Result<std::shared_ptr<ProgramMemory>> ProgramMemory::create(const cuda::Driver& driver,
                                                             cuda::CUcontext context, size_t bytes,
                                                             size_t count) {
  std::shared_ptr<ProgramMemory> memory(new ProgramMemory(bytes, count));
  COMM_ASSIGN(memory->pinned_, cuda::PinnedBuffer::take(driver, context, bytes * count));
  return memory;
}

ProgramMemory::Piece ProgramMemory::take() {
  Piece piece;
  for (size_t i = 0; i < count_; ++i) {
    if (used_[i].exchange(true, std::memory_order_acquire)) continue;
    piece.memory_ = shared_from_this();
    piece.index_ = i;
    break;
  }
  return piece;
}

}  // namespace libcomm
