// Engine: the thread that runs a communicator's asynchronous operations, in the order they were
// queued. Started by the first of them.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "src/base/status.h"

namespace libcomm {

class Engine {
 public:
  // kSystem: no thread to be had.
  static Result<std::unique_ptr<Engine>> start();
  ~Engine();  // runs what is queued, then ends
  // `work` lets no exception out.
  void submit(std::function<void()> work);
  // Returns when everything queued so far is done.
  void drain();

 private:
  Engine() = default;
  void loop();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool running_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace libcomm
