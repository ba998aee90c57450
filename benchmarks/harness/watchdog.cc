#include "benchmarks/harness/watchdog.h"

#include <unistd.h>

#include <cstdio>

namespace bench {

Watchdog::Watchdog(const char* program, std::chrono::seconds limit)
    : program_(program),
      limit_(limit),
      what_("initialisation"),
      deadline_(std::chrono::steady_clock::now() + limit),
      thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watchdog::restart(std::string what) {
  const std::lock_guard lock(mutex_);
  what_ = std::move(what);
  deadline_ = std::chrono::steady_clock::now() + limit_;
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    // restart() moves the deadline without a wake-up: look again when the old one passes.
    const auto deadline = deadline_;
    changed_.wait_until(lock, deadline, [this] { return stop_; });
    if (!stop_ && std::chrono::steady_clock::now() >= deadline_) {
      std::fprintf(stderr, "%s: pid %d: %s took longer than %lld s (--timeout)\n", program_,
                   static_cast<int>(getpid()), what_.c_str(),
                   static_cast<long long>(limit_.count()));
      std::fflush(nullptr);
      _exit(1);
    }
  }
}

}  // namespace bench
