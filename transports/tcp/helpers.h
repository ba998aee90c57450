// HelperPool: COMM_SOCKET_NTHREADS threads of one transport that move bytes for its channels.
//
// Each thread serves a list of strands (one per channel and thread) until they are removed. It
// sleeps in poll when none of them can move, so that an idle helper costs nothing. The threads
// block all signals: handlers belong to the application's threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "src/base/fd.h"
#include "transports/transport.h"

namespace libcomm {

// One helper's share of one channel. All methods are called by that helper only.
class Strand {
 public:
  virtual ~Strand() = default;
  // Moves what can be moved; false: nothing could.
  virtual bool move() = 0;
  virtual WaitHandle wait_handle() const = 0;
};

class Helper {
 public:
  // kSystem: no thread or descriptor to be had.
  static Result<std::unique_ptr<Helper>> start(int index);
  ~Helper();

  // Takes on a strand, which must live until remove() has returned. Any thread but the helper.
  void add(Strand* strand);
  void remove(Strand* strand);
  // Has the helper look at its strands. Costs one load while it is awake. What it shall see is to
  // be stored (sequentially consistent) before.
  void wake();

 private:
  struct Change {
    Strand* strand;
    bool add;
  };
  explicit Helper(UniqueFd bell) : bell_(std::move(bell)) {}
  void change(Strand* strand, bool add);
  void run();
  void apply_changes();
  bool move_all();
  void sleep();
  void ring();

  UniqueFd bell_;  // eventfd that ends the helper's poll
  std::atomic<bool> asleep_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> changed_{false};
  std::mutex mutex_;  // guards changes_ and applied_
  std::condition_variable applied_now_;
  std::vector<Change> changes_;
  uint64_t requested_ = 0;
  uint64_t applied_ = 0;
  std::vector<Strand*> strands_;  // the helper's own
  std::thread thread_;
};

// The helpers of one transport; starts them when the first channel needs them.
class HelperPool {
 public:
  explicit HelperPool(int threads) : threads_(threads) {}
  // Starts the threads if they are not running. Any thread.
  Status start();
  Helper& helper(int index) { return *helpers_[static_cast<size_t>(index)]; }
  int threads() const { return threads_; }
  int running() const { return running_; }

 private:
  const int threads_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Helper>> helpers_;
  std::atomic<int> running_{0};
};

}  // namespace libcomm
