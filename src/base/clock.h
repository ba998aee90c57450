// Monotonic time and deadlines. A deadline of zero length given by a knob means "never".
#pragma once

#include <chrono>

namespace libcomm {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

class Deadline {
 public:
  // Never passes.
  Deadline() = default;
  static Deadline after(Seconds s) {
    Deadline d;
    // Beyond a century the clock's own range would overflow: that is never.
    if (s < kCentury) d.at_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(s);
    return d;
  }
  // What a timeout knob means: seconds, 0 for none.
  static Deadline from_knob(double seconds) {
    return seconds > 0 ? after(Seconds(seconds)) : Deadline();
  }
  // This much later; never stays never.
  Deadline later_by(Seconds s) const {
    Deadline d = *this;
    if (at_ != Clock::time_point::max()) d.at_ += std::chrono::duration_cast<Clock::duration>(s);
    return d;
  }
  bool passed() const { return at_ != Clock::time_point::max() && Clock::now() >= at_; }
  // Milliseconds left for poll(2), rounded up, at most `cap_ms`; never negative.
  int poll_ms(int cap_ms) const {
    if (at_ == Clock::time_point::max()) return cap_ms;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(at_ - Clock::now()).count();
    return left <= 0 ? 0 : static_cast<int>(left < cap_ms ? left : cap_ms);
  }

 private:
  static constexpr Seconds kCentury{3.15e9};
  Clock::time_point at_ = Clock::time_point::max();
};

}  // namespace libcomm
