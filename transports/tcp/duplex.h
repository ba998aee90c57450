// Duplex: one connection for the small segments of both directions between two ranks.
//
// Every channel has a connection of its own. Where small messages go to and fro that costs time: an
// acknowledgement that could travel with the data of the other direction needs a packet to itself
// (docs/results/tcp-2026-11-22.md). So the higher rank moves its small segments to the connection
// that the lower rank opened for what it sends, and moves back for large ones: those are faster
// when each direction has a socket lock of its own. A header flag tells the receiver that the
// segments after this one come on the other connection (SegmentHeader::flags).
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <mutex>

#include "src/base/fd.h"
#include "transports/tcp/wire.h"

namespace libcomm {

// What the two channels between a pair of ranks (one lane, one in each direction) know of each
// other. Any thread.
class Duplex {
 public:
  // Whether this end's `sender` or receiver holds the connection that the lower rank opened, and is
  // to offer it; the other one takes it.
  static bool offers(const TcpEnds& ends, bool sender) { return (ends.rank < ends.peer) == sender; }

  void offer(int fd) {
    const std::lock_guard lock(mutex_);
    fd_ = fd;
  }
  // To be called before the descriptor is closed.
  void withdraw() { offer(-1); }
  // A descriptor of the connection offered; invalid when there is none (yet). kSystem names the
  // limit when this process may have no more descriptors.
  Result<UniqueFd> take() {
    const std::lock_guard lock(mutex_);
    if (fd_ < 0) return UniqueFd();
    UniqueFd taken(::fcntl(fd_, F_DUPFD_CLOEXEC, 0));
    if (!taken) return descriptor_error(errno, "a descriptor of the connection for both ways");
    return taken;
  }

 private:
  std::mutex mutex_;
  int fd_ = -1;
};

}  // namespace libcomm
