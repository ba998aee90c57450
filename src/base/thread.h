// Threads of the library: they take none of the application's signals, carry a name, and let no
// exception out; a thread that cannot be had is a Status that names the limit.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

// `name`: at most 15 characters, as ps and gdb show it. What escapes from `body` is logged and ends
// the thread. kSystem: the system has no more threads for this process or user.
Result<std::thread> start_thread(const std::string& name, std::function<void()> body);

// Threads that are joined when this goes, however that comes about.
class JoinedThreads {
 public:
  JoinedThreads() = default;
  ~JoinedThreads() { join(); }
  JoinedThreads(const JoinedThreads&) = delete;
  JoinedThreads& operator=(const JoinedThreads&) = delete;

  Status start(const std::string& name, std::function<void()> body);
  void join();
  size_t size() const { return threads_.size(); }

 private:
  std::vector<std::thread> threads_;
};

}  // namespace libcomm
