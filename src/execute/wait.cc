#include "src/execute/wait.h"

#include <poll.h>
#include <sched.h>
#include <time.h>

#include <algorithm>

#include "src/base/processor.h"

namespace libcomm {
namespace {

// Turns of each phase. A turn of spinning looks at the channels and nothing else: a pause
// instruction is up to 140 cycles, more than a small exchange takes.
//
// Ranks with cores of their own spin on for a while: giving the core to another program brings the
// peer no nearer, and that program keeps it for milliseconds, for which the peer then waits, yields
// in its turn, and so on. Unless the peer is on this very core, as the board can tell: it
// cannot move before we yield. Without a board nobody can tell, so the yields begin early.
constexpr unsigned kSpinsAlone = 300;
constexpr Seconds kSpinOn{1e-3};
constexpr unsigned kTurnsPerLook = 64;  // at the clock and at the cores
constexpr unsigned kSpinsShared = 20;   // someone else needs this core
constexpr unsigned kYieldsAlone = 8000;
constexpr unsigned kYieldsShared = 200;
constexpr int kSocketSleepMs = 50;

}  // namespace

bool FailureState::set(const Status& reason) {
  std::lock_guard lock(mutex_);
  if (failed_.load(std::memory_order_relaxed)) return false;
  reason_ = reason;
  failed_.store(true, std::memory_order_release);
  return true;
}

Status FailureState::reason() const {
  std::lock_guard lock(mutex_);
  return reason_;
}

void Waiter::disarm() {
  if (armed_) context_.board->cancel_sleep();
  armed_ = false;
}

Status Waiter::check_deadline() {
  if (context_.policy.timeout_seconds <= 0) return Status::ok();
  const auto now = Clock::now();
  if (since_ == Clock::time_point()) since_ = now;
  if (Seconds(now - since_).count() < context_.policy.timeout_seconds) return Status::ok();
  return error(
      Code::kSystem,
      "no progress for {} s: a peer has not made the matching call, or hangs; if it is only "
      "slow, raise COMM_TIMEOUT",
      context_.policy.timeout_seconds);
}

// Is it time to stop spinning?
bool Waiter::look_around() {
  make_elbow_room(*context_.board, context_.crowding);
  const auto now = Clock::now();
  if (spinning_since_ == Clock::time_point()) spinning_since_ = now;
  return now - spinning_since_ >= kSpinOn;
}

Status Waiter::idle(const Execution& execution) {
  slow_ = false;
  if (context_.failure->failed()) return context_.failure->reason();
  const WaitPolicy& policy = context_.policy;
  if (idle_++ == 0) {
    since_ = spinning_since_ = Clock::time_point();
    spun_on_ = false;
    yielded_from_ = 0;
  }
  const unsigned spins = policy.mode == WaitMode::kBlock ? 0
                         : policy.share_cores            ? kSpinsShared
                                                         : kSpinsAlone;
  if (idle_ <= spins) return Status::ok();
  if (policy.mode == WaitMode::kSpin) {
    if (idle_ % 1024 == 0) {
      slow_ = true;
      return check_deadline();
    }
    relax();
    return Status::ok();
  }
  if (policy.mode == WaitMode::kAdaptive && !policy.share_cores && context_.board != nullptr &&
      !spun_on_) {
    if ((idle_ - spins) % kTurnsPerLook == 1) spun_on_ = look_around();
    if (!spun_on_) return Status::ok();
    yielded_from_ = idle_;
  }
  const unsigned yields = policy.mode == WaitMode::kBlock ? 0
                          : policy.share_cores            ? kYieldsShared
                                                          : kYieldsAlone;
  if (idle_ <= std::max(spins, yielded_from_) + yields) {
    sched_yield();
    return Status::ok();
  }
  slow_ = true;
  COMM_TRY(check_deadline());
  sleep(execution);
  return Status::ok();
}

// With a board, two turns: announce the sleep and let the caller look once more, then sleep.
void Waiter::sleep(const Execution& execution) {
  std::vector<WaitHandle> handles;
  execution.wait_handles(&handles);
  std::vector<pollfd> fds;
  for (const WaitHandle& handle : handles) {
    if (handle.fd >= 0)
      fds.push_back({handle.fd, static_cast<short>(handle.for_write ? POLLOUT : POLLIN), 0});
  }
  if (!fds.empty()) {
    // Sockets wake us at once; shared memory, when both are awaited, within a millisecond.
    const bool also_memory = fds.size() < handles.size();
    ::poll(fds.data(), fds.size(), also_memory ? 1 : kSocketSleepMs);
    return;
  }
  if (context_.board == nullptr) {
    const timespec nap{0, 50'000};
    nanosleep(&nap, nullptr);
    return;
  }
  if (!armed_) {
    ticket_ = context_.board->prepare_sleep();
    armed_ = true;
    return;
  }
  context_.board->sleep(ticket_, execution.longest_nap_us());
  armed_ = false;
}

}  // namespace libcomm
