#include "src/communicator/host_stream.h"

namespace libcomm {

uint64_t HostStream::take_ticket() {
  std::lock_guard lock(mutex_);
  return issued_++;
}

void HostStream::wait_turn(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ >= ticket; });
}

void HostStream::finish(uint64_t ticket, const Status& status) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ >= ticket; });
  finished_ = ticket + 1;
  if (!status && first_failure_.is_ok()) first_failure_ = status;
  changed_.notify_all();
}

Status HostStream::query() const {
  std::lock_guard lock(mutex_);
  if (finished_ < issued_)
    return Status(Code::kInProgress, "operations of the stream are still running");
  return first_failure_;
}

Status HostStream::synchronize() {
  std::unique_lock lock(mutex_);
  const uint64_t until = issued_;
  changed_.wait(lock, [&] { return finished_ >= until; });
  return first_failure_;
}

}  // namespace libcomm
