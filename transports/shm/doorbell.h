// Doorbell: how a rank sleeps until a peer has something for it. A futex in memory that both have
// mapped, so it works between processes; a peer that rings pays one load while nobody sleeps.
#pragma once

#include "src/base/fence.h"
#include "transports/shm/layout.h"

namespace libcomm::shm {

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
