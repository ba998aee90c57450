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

// What came of one address.
struct Attempt {
  enum { kConnected, kRefused, kStrange, kFailed } outcome = kFailed;
  std::string reason;
  Waited ended = Waited::kReady;
  Status shortage;
  UniqueFd fd;
};

Attempt try_address(const SocketAddress& address, const Call& call, const WaitLimits& limits,
                    double patience) {
  const Deadline until = Deadline::after(Seconds(patience));
  Attempt attempt;
  int problem = 0;
  auto started = start_connect(address, &problem);
  if (!started) {
    if (problem == ECONNREFUSED) attempt.outcome = Attempt::kRefused;
    if (is_descriptor_shortage(problem)) attempt.shortage = started.status();
    attempt.reason = started.status().message();
    return attempt;
  }
  UniqueFd fd = *std::move(started);
  pollfd fds[2] = {{fd.get(), POLLOUT, 0}, {}};
  attempt.ended = wait_ready(fds, limits, until);
  if (attempt.ended != Waited::kReady) {
    attempt.reason = "no answer to the connection attempt";
    return attempt;
  }
  problem = finish_connect(fd.get());
  if (problem != 0) {
    if (problem == ECONNREFUSED) attempt.outcome = Attempt::kRefused;
    attempt.reason = errno_text(problem);
    return attempt;
  }
  tune_control_socket(fd.get());
  CallerHandshake handshake(call.key, call.purpose, call.from, call.to, call.index);
  Handshake state = handshake.start(fd.get());
  while (state == Handshake::kAgain) {
    fds[0] = {fd.get(), POLLIN, 0};
    attempt.ended = wait_ready(fds, limits, until);
    if (attempt.ended != Waited::kReady) {
      attempt.reason = "connected, but no answer to the handshake";
      return attempt;
    }
    state = handshake.step(fd.get());
  }
  switch (state) {
    case Handshake::kDone:
      attempt.outcome = Attempt::kConnected;
      attempt.fd = std::move(fd);
      break;
    case Handshake::kVersion:
      attempt.outcome = Attempt::kStrange;
      attempt.reason = "it speaks another version of libcomm's protocol";
      break;
    case Handshake::kStranger:
      attempt.outcome = Attempt::kStrange;
      attempt.reason = "who answers does not know this group's secret";
      break;
    default:
      attempt.reason = "the connection was closed during the handshake";
  }
  return attempt;
}

}  // namespace

DialRound dial_once(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                    double patience, size_t first) {
  DialRound round;
  round.all_refused = round.all_strange = true;
  for (size_t i = 0; i < endpoint.size(); ++i) {
    const size_t at = (first + i) % endpoint.size();
    Attempt attempt = try_address(endpoint[at], call, limits, patience);
    round.ended = attempt.ended;
    if (attempt.outcome == Attempt::kConnected) {
      round.fd = std::move(attempt.fd);
      round.address = at;
      return round;
    }
    if (attempt.outcome != Attempt::kRefused) round.all_refused = false;
    if (attempt.outcome != Attempt::kStrange) round.all_strange = false;
    if (!round.reasons.empty()) round.reasons += "; ";
    round.reasons += endpoint[at].to_string() + ": " + attempt.reason;
    if (round.ended == Waited::kCancelled || round.ended == Waited::kAlarm) return round;
    round.shortage = std::move(attempt.shortage);
    if (limits.deadline.passed() || !round.shortage) return round;
  }
  return round;
}

bool is_refused(const Endpoint& endpoint, const WaitLimits& limits, double patience) {
  const Deadline until = Deadline::after(Seconds(patience));
  for (const SocketAddress& address : endpoint) {
    int problem = 0;
    const auto fd = start_connect(address, &problem);
    if (fd) {
      pollfd fds[2] = {{fd->get(), POLLOUT, 0}, {}};
      if (wait_ready(fds, limits, until) != Waited::kReady) return false;
      problem = finish_connect(fd->get());
    }
    if (problem != ECONNREFUSED) return false;
  }
  return !endpoint.empty();
}

Result<UniqueFd> dial(const Endpoint& endpoint, const Call& call, const WaitLimits& limits,
                      const DialPolicy& policy, const std::string& who, size_t* address) {
  // Short at first, so that a dead interface costs little; longer later, so that a loaded machine
  // does not look like one.
  double patience = endpoint.size() > 1 ? 1 : 5;
  double pause = 0.005;
  Deadline refused = Deadline::from_knob(policy.refused_for);
  Deadline stranger = Deadline::from_knob(policy.stranger_for);
  // What went wrong while somebody listened: who gives up and closes hides it from those that
  // still try.
  std::string earlier;
  for (;;) {
    DialRound round =
        dial_once(endpoint, call, limits, patience, address != nullptr ? *address : 0);
    if (round.fd) {
      if (address != nullptr) *address = round.address;
      return std::move(round.fd);
    }
    if (round.ended == Waited::kCancelled) return error(Code::kInvalidUsage, "cancelled");
    if (round.ended == Waited::kAlarm) return error(Code::kRemote, "the group has failed");
    if (!round.shortage) return std::move(round.shortage);
    if (!round.all_refused) refused = Deadline::from_knob(policy.refused_for);
    if (!round.all_strange) stranger = Deadline::from_knob(policy.stranger_for);
    if (!earlier.empty() && (round.all_refused || limits.deadline.passed()))
      round.reasons += " (before: " + earlier + ")";
    else if (!round.all_refused)
      earlier = round.reasons;
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
