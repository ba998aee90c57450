// -T: ends the process when one row takes too long, since a hung call cannot be called off.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace bench {

class Watchdog {
 public:
  Watchdog(const char* program, std::chrono::seconds limit);
  ~Watchdog();
  // Starts the clock again for `what`.
  void restart(std::string what);

 private:
  void watch();

  const char* program_;
  std::chrono::seconds limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string what_;
  std::chrono::steady_clock::time_point deadline_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace bench
