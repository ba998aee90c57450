// ForkMutex: usable in a child that was forked while another thread held it.
#include "src/base/fork_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "tests/base/child.h"

namespace libcomm {
namespace {

TEST(ForkMutex, IsFreeInAChildForkedWhileAnotherThreadKeepsTakingIt) {
  static ForkMutex mutex;
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      std::lock_guard lock(mutex);
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(test::in_child([&] {
                const bool taken = mutex.try_lock();
                if (taken) mutex.unlock();
                return taken ? 0 : 1;
              }),
              0);
  }
  stop = true;
  busy.join();
}

}  // namespace
}  // namespace libcomm
