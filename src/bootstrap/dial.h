// Dialling: a blocking, authenticated connection to an endpoint that has several addresses.
#pragma once

#include <string>

#include "src/base/fd.h"
#include "src/bootstrap/handshake.h"
#include "src/bootstrap/socket.h"
#include "src/bootstrap/wait.h"

namespace libcomm {

// Whom to call, as the Hello says it.
struct Call {
  Key key;
  uint16_t purpose;
  uint32_t from;
  uint32_t to;
  uint32_t index;
};

// One round over the addresses, or why none of them led to somebody who knows the key.
struct DialRound {
  UniqueFd fd;
  size_t address = 0;             // the one that worked
  bool all_refused = false;       // nobody listens at any of them
  bool all_strange = false;       // somebody answers at each of them, who does not know the key
  Waited ended = Waited::kReady;  // kCancelled, kAlarm: the wait was ended from outside
  Status shortage;                // no descriptor for a socket: trying again is of no use
  std::string reasons;            // "10.0.0.1:47: connection refused; ..."
};

// Tries each address once, starting with `first`, each for at most `patience` seconds.
DialRound dial_once(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                    double patience, size_t first = 0);

// Whether every address refuses a connection: nobody listens there. False where that stays unknown
// for `patience` seconds.
bool is_refused(const Endpoint& endpoint, const WaitLimits& limits, double patience);

// When dial() stops before its limits do, in seconds; 0: it does not.
struct DialPolicy {
  double refused_for = 0;   // every address refuses: nobody is there (any more)
  double stranger_for = 3;  // every address answers, but none knows the key
};

// Rounds until one succeeds or the limits end it. `address`, when given, is tried first and
// receives the one that worked. Errors name `who`: kRemote when refused for long, kInvalidUsage
// ("cancelled") or kRemote when the limits' flag or alarm ended it, else kSystem.
Result<UniqueFd> dial(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                      const DialPolicy& policy, const std::string& who, size_t* address = nullptr);

}  // namespace libcomm
