#include "src/base/fork_mutex.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdlib>

namespace libcomm {
namespace {

// Entries are added while the library starts or on first use, and never removed.
constexpr int kMost = 32;
std::array<std::atomic<ForkMutex*>, kMost> g_mutexes{};
std::atomic<int> g_count{0};
// Those that the prepare handler took: a mutex made during a fork is not among them.
int g_taken = 0;

void before_fork() {
  g_taken = g_count.load(std::memory_order_acquire);
  for (int i = 0; i < g_taken; ++i) g_mutexes[static_cast<size_t>(i)].load()->lock();
}

void after_fork() {
  for (int i = g_taken - 1; i >= 0; --i) g_mutexes[static_cast<size_t>(i)].load()->unlock();
}

}  // namespace

ForkMutex::ForkMutex() {
  static std::mutex adding;
  static const int installed = pthread_atfork(before_fork, after_fork, after_fork);
  (void)installed;
  std::lock_guard lock(adding);
  const int index = g_count.load(std::memory_order_relaxed);
  if (index == kMost) std::abort();  // more process-wide mutexes than the library has by design
  g_mutexes[static_cast<size_t>(index)].store(this);
  g_count.store(index + 1, std::memory_order_release);
}

}  // namespace libcomm
