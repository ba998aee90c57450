#include "src/communicator/device_execution.h"

namespace libcomm {
namespace {

constexpr Seconds kCheckEvery{0.2};

uint32_t load(uint32_t& word) {
  return std::atomic_ref<uint32_t>(word).load(std::memory_order_acquire);
}

}  // namespace

Status DeviceExecution::advance(Progress* progress) {
  *progress = has_ended() ? Progress::kDone : Progress::kStuck;
  if (*progress == Progress::kDone) return Status::ok();
  if (!check_at_) check_at_ = Deadline::after(kCheckEvery);
  if (!check_at_->passed()) return Status::ok();
  check_at_ = Deadline::after(kCheckEvery);
  return check_();
}

void DeviceExecution::awaited_peers(std::vector<int>* peers) const {
  for (size_t lane = 0; lane < seen_.size(); ++lane) {
    if (asked_ && seen_[lane].changes < 2) continue;
    const int peer = cuda::peer_of_await_word(load(words_.awaits[lane]));
    if (peer >= 0) peers->push_back(peer);
  }
}

bool DeviceExecution::has_looked(size_t number) {
  const bool anew = asked_ != number;
  asked_ = number;
  bool looked = false;
  for (size_t lane = 0; lane < seen_.size(); ++lane) {
    Seen& seen = seen_[lane];
    const uint32_t now = load(words_.awaits[lane]);
    if (anew)
      seen = {now, 0};
    else if (now != seen.word)
      seen = {now, seen.changes + 1};
    // The second was said after a look that was after the first, which was said after the question.
    looked = looked || (seen.changes >= 2 && cuda::peer_of_await_word(now) >= 0);
  }
  return looked;
}

}  // namespace libcomm
