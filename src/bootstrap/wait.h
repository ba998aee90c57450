// What ends a wait on sockets: readiness, the deadline, cancellation, or bad news.
#pragma once

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <span>

#include "src/base/clock.h"

namespace libcomm {

struct WaitLimits {
  Deadline deadline;
  const std::atomic<bool>* cancel = nullptr;      // polled every few milliseconds
  int alarm = -1;                                 // descriptor that becomes readable with bad news
  const std::atomic<bool>* cancel_too = nullptr;  // as `cancel`: of the group that one derives from

  bool cancelled() const {
    return (cancel != nullptr && cancel->load(std::memory_order_acquire)) ||
           (cancel_too != nullptr && cancel_too->load(std::memory_order_acquire));
  }
  // How long one poll(2) may last, in milliseconds.
  int slice_ms() const {
    return deadline.poll_ms(cancel != nullptr || cancel_too != nullptr ? 20 : 1000);
  }
};

enum class Waited { kReady, kTimeout, kCancelled, kAlarm };

// Waits until one of `fds` is ready. `fds` leaves its last element to the alarm.
// `until` may end it (kTimeout) before the limits' own deadline.
inline Waited wait_ready(std::span<pollfd> fds, const WaitLimits& limits, const Deadline& until) {
  fds.back() = {limits.alarm, POLLIN, 0};
  for (;;) {
    if (limits.cancelled()) return Waited::kCancelled;
    const int ready =
        ::poll(fds.data(), fds.size(), std::min(limits.slice_ms(), until.poll_ms(1000)));
    if (ready > 0 && limits.alarm >= 0 && fds.back().revents != 0) return Waited::kAlarm;
    if (ready > 0) return Waited::kReady;
    if (limits.deadline.passed() || until.passed()) return Waited::kTimeout;
  }
}

}  // namespace libcomm
