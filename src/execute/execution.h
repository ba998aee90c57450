// Execution: an operation in progress, as a state machine that never blocks.
//
// Because advance() only ever does what can be done now, one thread can drive several operations of
// several communicators at once (groups), and all waiting is in one place (run.h).
#pragma once

#include <memory>
#include <vector>

#include "src/base/status.h"
#include "transports/transport.h"

namespace libcomm {

enum class Progress {
  kDone,
  kMoved,  // something happened; call again
  kStuck,  // nothing can be done until a peer does something
};

class Execution {
 public:
  virtual ~Execution() = default;
  virtual Status advance(Progress* progress) = 0;
  // Who must do something before this can go on; only called after kStuck. Empty: not known.
  virtual void awaited_peers(std::vector<int>* peers) const { (void)peers; }
  // Whether all that peers had done when this was first asked with that number has been looked at.
  // Asked again until it has. True where advance() is what looks.
  virtual bool has_looked(size_t number) {
    (void)number;
    return true;
  }
  // How long a waiter sleeps at most: what a lost wake-up costs, or, where nobody wakes it, being
  // late.
  virtual int longest_nap_us() const { return 2000; }
  // What a waiter may sleep on; only called after kStuck.
  virtual void wait_handles(std::vector<WaitHandle>* handles) const { (void)handles; }
};

// A channel with the counts that belong to its user.
struct SendPort {
  std::unique_ptr<SendChannel> channel;
  uint64_t accepted = 0;   // segments given to the channel
  uint64_t completed = 0;  // of these, whose memory may be used again
  bool blocked = false;    // scratch for the executor: an earlier message has not gone out whole
};
struct RecvPort {
  std::unique_ptr<RecvChannel> channel;
};

// Collective lanes are numbered 0..kMaxLanes-1; point-to-point messages have a lane of their own.
inline constexpr int kMaxLanes = 16;
inline constexpr int kP2pLane = 31;

// Where executions get their channels; opens them on first use. The communicator implements it.
class Ports {
 public:
  virtual ~Ports() = default;
  virtual Result<SendPort*> send_port(int peer, int lane) = 0;
  virtual Result<RecvPort*> recv_port(int peer, int lane) = 0;
};

}  // namespace libcomm
