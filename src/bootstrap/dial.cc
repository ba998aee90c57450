#include "src/bootstrap/dial.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace libcomm {
namespace {

std::string errno_text(int err) {
  char buffer[128];
  return strerror_r(err, buffer, sizeof buffer);
}

// One address. Returns the reason, empty for success.
std::string try_address(const SocketAddress& address, const Call& call, const WaitLimits& limits,
                        double patience, DialRound* round, bool* refused) {
  const Deadline until = Deadline::after(Seconds(patience));
  auto started = start_connect(address);
  if (!started) return started.status().message();
  UniqueFd fd = *std::move(started);
  pollfd fds[2] = {{fd.get(), POLLOUT, 0}, {}};
  round->ended = wait_ready(fds, limits, until);
  if (round->ended != Waited::kReady) return "no answer to the connection attempt";
  if (const int problem = finish_connect(fd.get()); problem != 0) {
    *refused = problem == ECONNREFUSED;
    return errno_text(problem);
  }
  tune_control_socket(fd.get());
  CallerHandshake handshake(call.key, call.purpose, call.from, call.to, call.index);
  Handshake state = handshake.start(fd.get());
  while (state == Handshake::kAgain) {
    fds[0] = {fd.get(), POLLIN, 0};
    round->ended = wait_ready(fds, limits, until);
    if (round->ended != Waited::kReady) return "connected, but no answer to the handshake";
    state = handshake.step(fd.get());
  }
  switch (state) {
    case Handshake::kDone:
      round->fd = std::move(fd);
      return "";
    case Handshake::kClosed:
      return "the connection was closed during the handshake";
    case Handshake::kVersion:
      round->version = true;
      return "it speaks another version of libcomm's protocol";
    default:
      round->stranger = true;
      return "who answers does not know this group's secret";
  }
}

}  // namespace

DialRound dial_once(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                    double patience, size_t first) {
  DialRound round;
  round.all_refused = true;
  for (size_t i = 0; i < endpoint.size(); ++i) {
    const size_t at = (first + i) % endpoint.size();
    bool refused = false;
    const std::string reason = try_address(endpoint[at], call, limits, patience, &round, &refused);
    if (round.fd) {
      round.address = at;
      return round;
    }
    if (!refused) round.all_refused = false;
    if (!round.reasons.empty()) round.reasons += "; ";
    round.reasons += endpoint[at].to_string() + ": " + reason;
    if (round.ended == Waited::kCancelled || round.ended == Waited::kAlarm) return round;
    if (limits.deadline.passed()) return round;
  }
  return round;
}

Result<UniqueFd> dial(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                      const DialPolicy& policy, const std::string& who, size_t* address) {
  // Short at first, so that a dead interface costs little; longer later, so that a loaded machine
  // does not look like one.
  double patience = endpoint.size() > 1 ? 1 : 5;
  double pause = 0.005;
  Deadline refused = Deadline::from_knob(policy.refused_for);
  Deadline stranger = Deadline::from_knob(policy.stranger_for);
  for (;;) {
    DialRound round =
        dial_once(endpoint, call, limits, patience, address != nullptr ? *address : 0);
    if (round.fd) {
      if (address != nullptr) *address = round.address;
      return std::move(round.fd);
    }
    if (round.ended == Waited::kCancelled) return error(Code::kInvalidUsage, "cancelled");
    if (round.ended == Waited::kAlarm) return error(Code::kRemote, "the group has failed");
    if (!round.all_refused) refused = Deadline::from_knob(policy.refused_for);
    if (!round.stranger && !round.version) stranger = Deadline::from_knob(policy.stranger_for);
    if (refused.passed())
      return error(Code::kRemote, "nobody listens at {}: {}", who, round.reasons);
    if (limits.deadline.passed() || stranger.passed())
      return error(Code::kSystem, "cannot reach {}: {}", who, round.reasons);
    pollfd nothing[1];
    (void)wait_ready(nothing, limits, Deadline::after(Seconds(pause)));
    pause = std::min(pause * 2, 0.2);
    patience = std::min(patience * 2, 20.0);
  }
}

}  // namespace libcomm
