// Waiting: what a rank does when nothing can be done until a peer does something.
//
// A wait spins, then yields, then sleeps (on the board's doorbell, or on sockets). How long each
// phase lasts follows from whether the ranks of this host have cores of their own. Every wait ends:
// it watches for progress (the caller does), the failure of the communicator and the deadline.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/execute/elbow_room.h"
#include "src/execute/execution.h"

namespace libcomm {

// The first failure of a communicator, told by whoever noticed. Shared by the caller's thread, the
// engine and the monitor.
class FailureState {
 public:
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  // The first one wins; true when this was it.
  bool set(const Status& reason);
  Status reason() const;

 private:
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  Status reason_;
};

enum class WaitMode { kSpin = 0, kAdaptive = 1, kBlock = 2 };  // COMM_WAIT's choices

struct WaitPolicy {
  WaitMode mode = WaitMode::kAdaptive;
  bool share_cores = false;    // more ranks on this host than cores they may use
  double timeout_seconds = 0;  // without any progress; 0: never
};

// What one communicator's waits need to know.
struct WaitContext {
  WaitPolicy policy;
  FailureState* failure = nullptr;
  Board* board = nullptr;        // may be null
  Crowding* crowding = nullptr;  // set with the board
};

class Waiter {
 public:
  explicit Waiter(const WaitContext& context) : context_(context) {}
  ~Waiter() { disarm(); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  // There was progress: the next wait begins anew.
  void moved() {
    if (idle_ != 0) {
      idle_ = 0;
      disarm();
    }
  }
  // Nothing could be done. Returns after a moment, for another try; the failure of the
  // communicator, or kSystem when the deadline has passed.
  Status idle(const Execution& execution);
  // True about once per sleep: time for checks that are too slow for every turn.
  bool is_slow() const { return slow_; }

 private:
  void disarm();
  bool look_around();
  Status check_deadline();
  void sleep(const Execution& execution);

  WaitContext context_;
  unsigned idle_ = 0;
  bool slow_ = false;
  bool armed_ = false;  // prepare_sleep() was called; the next idle() sleeps
  uint32_t ticket_ = 0;
  Clock::time_point since_{};
  Clock::time_point spinning_since_{};
  bool spun_on_ = false;       // the time for spinning is over
  unsigned yielded_from_ = 0;  // idle_ when it ended
};

}  // namespace libcomm
