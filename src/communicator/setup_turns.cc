#include "src/communicator/setup_turns.h"

#include <chrono>
#include <utility>

namespace libcomm {
namespace {

constexpr std::chrono::milliseconds kLookForCancel{20};

}  // namespace

SetupTurns::Turn::Turn(std::shared_ptr<Line> line) : line_(std::move(line)) {
  std::lock_guard lock(line_->mutex);
  number_ = line_->next++;
  line_->waiting.insert(number_);
}

Status SetupTurns::Turn::await(const std::atomic<bool>* cancel) const {
  std::unique_lock lock(line_->mutex);
  while (*line_->waiting.begin() != number_) {
    if (cancel != nullptr && cancel->load(std::memory_order_acquire))
      return Status(Code::kInvalidUsage, "cancelled while an earlier set-up call was running");
    line_->changed.wait_for(lock, kLookForCancel);
  }
  return Status::ok();
}

void SetupTurns::Turn::over() {
  {
    std::lock_guard lock(line_->mutex);
    line_->waiting.erase(number_);
  }
  line_->changed.notify_all();
}

}  // namespace libcomm
