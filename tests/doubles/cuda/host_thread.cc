#include "tests/doubles/cuda/host_thread.h"

#include <thread>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {
thread_local bool t_here = false;
}

bool HostThread::here() { return t_here; }

void HostThread::post(State& state, CUhostFn function, void* argument, std::function<void()> then) {
  calls_.push_back({function, argument, std::move(then)});
  changed_.notify_one();
  if (started_) return;
  started_ = true;
  start_thread([this, &state] { loop(state); });
}

void HostThread::loop(State& state) {
  t_here = true;
  Lock lock(state.mutex);
  for (;;) {
    changed_.wait(lock, [this] { return !calls_.empty(); });
    const Call call = std::move(calls_.front());
    calls_.pop_front();
    lock.unlock();
    call.function(call.argument);
    lock.lock();
    if (call.then) call.then();
  }
}

}  // namespace libcomm::cuda::doubled
