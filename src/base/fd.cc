#include "src/base/fd.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace libcomm {
namespace {

// One bit per descriptor number. Lock-free, because the child of fork() may only do
// async-signal-safe things. Descriptors beyond the table are still closed by their owners.
constexpr int kTableFds = 1 << 20;
std::atomic<uint64_t> g_owned[kTableFds / 64];
std::atomic<int> g_highest{0};
std::atomic<unsigned> g_generation{0};

void close_all_in_child() {
  g_generation.fetch_add(1, std::memory_order_relaxed);
  const int words = g_highest.load(std::memory_order_relaxed) / 64 + 1;
  for (int word = 0; word < words; ++word) {
    uint64_t bits = g_owned[word].exchange(0, std::memory_order_relaxed);
    while (bits != 0) {
      const int bit = __builtin_ctzll(bits);
      bits &= bits - 1;
      ::close(word * 64 + bit);
    }
  }
}

void install_fork_handler() {
  static const int installed = pthread_atfork(nullptr, nullptr, close_all_in_child);
  (void)installed;
}

void note(int fd) {
  install_fork_handler();
  if (fd >= kTableFds) return;
  g_owned[fd / 64].fetch_or(uint64_t{1} << (fd % 64), std::memory_order_relaxed);
  int highest = g_highest.load(std::memory_order_relaxed);
  while (fd > highest && !g_highest.compare_exchange_weak(highest, fd)) {
  }
}

// True when the descriptor was still this process's to close.
bool forget(int fd) {
  if (fd >= kTableFds) return true;
  const uint64_t bit = uint64_t{1} << (fd % 64);
  return (g_owned[fd / 64].fetch_and(~bit, std::memory_order_relaxed) & bit) != 0;
}

}  // namespace

UniqueFd::UniqueFd(int fd) : fd_(fd) {
  if (fd >= 0) note(fd);
}

void UniqueFd::reset() {
  if (fd_ >= 0 && forget(fd_)) ::close(fd_);
  fd_ = -1;
}

int UniqueFd::release() {
  if (fd_ >= 0) (void)forget(fd_);
  return std::exchange(fd_, -1);
}

unsigned fork_generation() {
  install_fork_handler();
  return g_generation.load(std::memory_order_relaxed);
}

}  // namespace libcomm
