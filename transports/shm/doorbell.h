// Doorbell: how a rank sleeps until a peer has something for it. A futex in memory that both have
// mapped, so it works between processes; a peer that rings pays one load while nobody sleeps.
#pragma once

#include "transports/shm/layout.h"

namespace libcomm::shm {

// Everything stored before is visible to others before anything loaded after is taken.
inline void full_fence() {
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer does not model fences; a read-modify-write orders the same on what we build
  // for.
  static std::atomic<uint32_t> word;
  (void)word.fetch_add(0, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// The slow half of ring(): bumps the futex word and wakes every sleeper.
void ring_sleepers(Doorbell& bell);

inline void ring(Doorbell& bell) {
  if (bell.sleepers.load(std::memory_order_relaxed) != 0) ring_sleepers(bell);
}

// The sleeper's side, in this order: prepare, look again at what is awaited, then wait or cancel.
uint32_t prepare_wait(Doorbell& bell);
void wait(Doorbell& bell, uint32_t ticket, int microseconds);
void cancel_wait(Doorbell& bell);

}  // namespace libcomm::shm
