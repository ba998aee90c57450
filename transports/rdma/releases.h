// Releases: how arrivals of one direction spare the other direction a packet.
//
// The two channels between a pair of ranks on a lane, one in each direction, run side by side. A
// receiver has to say which arrivals it has released, so that their entries may be used again. When
// something is sent the other way meanwhile, that arrival says it on the way, and a ping-pong needs
// no packet of its own for it.
//
// What was said so counts as told only when the peer says, in an arrival of its own, that it knows:
// a peer may not look at what it is sent for long, and must not run out of entries meanwhile.
#pragma once

#include <atomic>
#include <cstdint>

namespace libcomm::rdma {

// Of one pair of channels at one of the two ranks. The channels may belong to different threads.
struct Releases {
  // Arrivals that the receiver here has released. Written by it, sent by the sender.
  std::atomic<uint64_t> here{0};
  // Those of the sender here that the peer has released, as arrivals said. Written by the receiver,
  // used by the sender.
  std::atomic<uint64_t> there{0};
};

}  // namespace libcomm::rdma
