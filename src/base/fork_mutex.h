// ForkMutex: a mutex that fork() leaves usable in the child.
//
// A std::mutex that another thread holds at the moment of a fork stays locked for ever in the
// child, which has only the forking thread. Every ForkMutex is taken before the fork and given back
// on both sides. For objects that live as long as the process, held briefly, and never while
// another ForkMutex is being taken (a leaf), because the fork takes all of them.
#pragma once

#include <mutex>

namespace libcomm {

class ForkMutex {
 public:
  ForkMutex();
  ForkMutex(const ForkMutex&) = delete;
  ForkMutex& operator=(const ForkMutex&) = delete;

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  bool try_lock() { return mutex_.try_lock(); }

 private:
  std::mutex mutex_;
};

}  // namespace libcomm
