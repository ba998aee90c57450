#include "src/base/fd.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
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
  g_generation.fetch_add(1, std::memory_order_relaxed);  // first: destructors in the child see it
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

void forget(int fd) {
  if (fd >= kTableFds) return;
  g_owned[fd / 64].fetch_and(~(uint64_t{1} << (fd % 64)), std::memory_order_relaxed);
}

}  // namespace

bool is_descriptor_shortage(int err) { return err == EMFILE || err == ENFILE; }

Status descriptor_error(int err, std::string what) {
  if (err == EMFILE) {
    rlimit limit{};
    (void)::getrlimit(RLIMIT_NOFILE, &limit);
    what +=
        fmt::format(" (this process may have {} descriptors: raise `ulimit -n`)", limit.rlim_cur);
  }
  return system_error(err, std::move(what));
}

UniqueFd::UniqueFd(int fd) : fd_(fd) {
  if (fd < 0) return;
  note(fd);
  generation_ = g_generation.load(std::memory_order_relaxed);
}

// Forgets before it closes: once closed, the number may be another thread's new descriptor.
void UniqueFd::reset() {
  if (const int fd = release(); fd >= 0) ::close(fd);
}

int UniqueFd::release() {
  const int fd = std::exchange(fd_, -1);
  if (fd < 0 || generation_ != g_generation.load(std::memory_order_relaxed)) return -1;
  forget(fd);
  return fd;
}

unsigned fork_generation() {
  install_fork_handler();
  return g_generation.load(std::memory_order_relaxed);
}

}  // namespace libcomm
