#include "transports/shm/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace libcomm::shm {
namespace {

// The word is an atomic of the same size and representation, which Linux lets us wait on. Not the
// PRIVATE kind: sleeper and waker may be different processes.
long futex(std::atomic<uint32_t>& word, int op, uint32_t value, const timespec* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), op, value, timeout, nullptr, 0);
}

}  // namespace

void ring_sleepers(Doorbell& bell) {
  bell.rings.fetch_add(1, std::memory_order_release);
  futex(bell.rings, FUTEX_WAKE, INT_MAX, nullptr);
}

uint32_t prepare_wait(Doorbell& bell) {
  // Before the ticket: a waker that does not see this sleeper has stored its news before the
  // sleeper looks again, and one that sees it rings after.
  bell.sleepers.fetch_add(1, std::memory_order_seq_cst);
  full_fence();
  return bell.rings.load(std::memory_order_acquire);
}

void wait(Doorbell& bell, uint32_t ticket, int microseconds) {
  const timespec timeout{microseconds / 1000000, (microseconds % 1000000) * 1000L};
  futex(bell.rings, FUTEX_WAIT, ticket, &timeout);
  cancel_wait(bell);
}

void cancel_wait(Doorbell& bell) { bell.sleepers.fetch_sub(1, std::memory_order_relaxed); }

}  // namespace libcomm::shm
