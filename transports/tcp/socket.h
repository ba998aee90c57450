// What every data socket needs: its options, what a failed call means, and a watch for dead routes.
#pragma once

#include "src/base/clock.h"
#include "src/base/status.h"
#include "transports/tcp/wire.h"

namespace libcomm {

// How long a route may be silent before its connection is given up.
inline constexpr std::chrono::seconds kRouteTimeout{30};

// No delay for small segments; keepalive probes that find a dead route within kRouteTimeout while
// this end only listens. Buffer sizes stay with the kernel, which grows them as the connection
// needs: setting one switches that off, and on a long fat route a fixed size is wrong.
void tune_data_socket(int fd);

// What an errno of send or recv says about the peer; 0 is an end of file. Always kRemote.
Status connection_lost(const TcpEnds& ends, int err);

// Notices that the way to the peer is cut while bytes wait to be sent.
//
// The kernel alone would retransmit for a quarter of an hour. TCP_USER_TIMEOUT is no remedy: it
// also kills a connection whose peer is alive and merely does not read, such as a rank that
// computes (Linux counts the time with a closed window; tried: a reader idle for the timeout gives
// ETIMEDOUT). So the sender asks the kernel: a peer that does not read still answers window probes,
// a dead route answers nothing.
class RouteWatch {
 public:
  // The socket took no byte. kRemote when retransmissions or probes have gone unanswered for
  // kRouteTimeout.
  Status blocked(int fd, const TcpEnds& ends);
  void moved() { blocked_ = false; }

 private:
  bool blocked_ = false;
  Clock::time_point next_look_;
};

}  // namespace libcomm
