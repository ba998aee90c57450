// The one thread that runs the host functions of all streams, and the destructors of user objects.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>

#include "tests/doubles/cuda/calls.h"

namespace libcomm::cuda::doubled {

struct State;

class HostThread {
 public:
  // With the lock held; `then` is called with it, after the function.
  void post(State& state, CUhostFn function, void* argument, std::function<void()> then = {});
  // Whether this thread is in one.
  static bool here();

 private:
  struct Call {
    CUhostFn function;
    void* argument;
    std::function<void()> then;
  };
  void loop(State& state);

  std::deque<Call> calls_;
  std::condition_variable changed_;
  bool started_ = false;
};

}  // namespace libcomm::cuda::doubled
