#include "transports/tcp/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "src/base/log.h"

namespace libcomm {
namespace {

void set_option(int fd, int level, int option, int value, const char* name) {
  if (::setsockopt(fd, level, option, &value, sizeof value) == 0) return;
  // Not fatal: the connection works without, slower or with later news of a dead route. Sockets
  // that are not TCP (in tests) take none of these.
  log_trace(Subsys::kNet, "setsockopt {} on a data socket failed: errno {}", name, errno);
}

}  // namespace

void tune_data_socket(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
  // First probe after 10 s of silence, then every 5 s; the fourth that stays unanswered ends it.
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10, "TCP_KEEPIDLE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5, "TCP_KEEPINTVL");
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4, "TCP_KEEPCNT");
}

Status connection_lost(const TcpEnds& ends, int err) {
  std::string text;
  switch (err) {
    case 0:
    case ECONNRESET:
    case EPIPE:
      text = fmt::format("connection to rank {} closed: the process probably died; see its log",
                         ends.peer);
      break;
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
      text = fmt::format(
          "the host of rank {} does not answer any more ({}): check its power, its network "
          "interface and the route to it",
          ends.peer, std::strerror(err));
      break;
    default:
      text = fmt::format("connection to rank {} failed: {}", ends.peer, std::strerror(err));
  }
  return Status(Code::kRemote, std::move(text)).at_rank(ends.rank).with_peer(ends.peer);
}

Status RouteWatch::blocked(int fd, const TcpEnds& ends) {
  const Clock::time_point now = Clock::now();
  if (!blocked_) {
    blocked_ = true;
    next_look_ = now + std::chrono::seconds(5);
  }
  if (now < next_look_) return Status::ok();
  next_look_ = now + std::chrono::seconds(1);

  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return Status::ok();
  // Both counters restart with every answer. One unanswered try is what every round trip begins
  // with.
  const int unanswered = info.tcpi_retransmits + info.tcpi_probes;
  const std::chrono::milliseconds silent(info.tcpi_last_ack_recv);
  if (unanswered < 3 || silent < kRouteTimeout) return Status::ok();
  return connection_lost(ends, ETIMEDOUT);
}

}  // namespace libcomm
