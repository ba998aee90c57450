#include "src/communicator/engine.h"

#include "src/base/thread.h"

namespace libcomm {

Result<std::unique_ptr<Engine>> Engine::start() {
  std::unique_ptr<Engine> engine(new Engine);
  COMM_ASSIGN(engine->thread_, start_thread("comm-engine", [raw = engine.get()] { raw->loop(); }));
  return engine;
}

Engine::~Engine() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Engine::submit(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void Engine::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return queue_.empty() && !running_; });
}

void Engine::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    running_ = true;
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
    running_ = false;
    changed_.notify_all();
  }
}

}  // namespace libcomm
