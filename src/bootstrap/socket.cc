#include "src/bootstrap/socket.h"

#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace libcomm {
namespace {

void set_option(int fd, int level, int name, int value) {
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

}  // namespace

Result<UniqueFd> listen_on(const SocketAddress& address, SocketAddress* bound, int* refused) {
  const auto failed = [&](const char* what) -> Status {
    const int err = errno;
    if (refused != nullptr) *refused = err;
    return descriptor_error(
        err, fmt::format("cannot {} {} (port {})", what, address.to_string(), address.port()));
  };
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return failed("open a socket for");
  if (address.family() == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  // Connections of an earlier job in TIME_WAIT do not hold a chosen port.
  if (address.port() != 0) set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage storage;
  const socklen_t length = address.to_sockaddr(&storage);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) return failed("bind");
  if (::listen(fd.get(), 4096) != 0) return failed("listen on");
  socklen_t got = sizeof storage;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &got) != 0)
    return failed("read the port of");
  *bound = SocketAddress::from(reinterpret_cast<sockaddr*>(&storage));
  return fd;
}

Result<Listeners> Listeners::open(const Endpoint& addresses) {
  Listeners listeners;
  Status first_failure;
  for (const SocketAddress& address : addresses) {
    SocketAddress bound;
    auto fd = listen_on(address, &bound);
    if (!fd) {
      if (first_failure) first_failure = fd.status();
      continue;
    }
    listeners.fds.push_back(*std::move(fd));
    listeners.endpoint.push_back(bound);
  }
  if (listeners.fds.empty() && !first_failure) return first_failure;
  if (listeners.fds.empty()) return error(Code::kInternal, "no address to listen on");
  return listeners;
}

UniqueFd accept_one(int listener, SocketAddress* from, int* problem) {
  sockaddr_storage storage;
  socklen_t length = sizeof storage;
  *problem = 0;
  const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&storage), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) *problem = errno;
    return UniqueFd();
  }
  *from = SocketAddress::from(reinterpret_cast<sockaddr*>(&storage));
  return UniqueFd(fd);
}

SocketAddress remote_address(int fd) {
  sockaddr_storage storage;
  socklen_t length = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return SocketAddress::from(reinterpret_cast<sockaddr*>(&storage));
}

Result<UniqueFd> start_connect(const SocketAddress& address, int* problem) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    if (problem != nullptr) *problem = errno;
    return descriptor_error(errno, "cannot open a socket");
  }
  sockaddr_storage storage;
  const socklen_t length = address.to_sockaddr(&storage);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 &&
      errno != EINPROGRESS && errno != EINTR) {
    const int err = errno;
    if (problem != nullptr) *problem = err;
    return system_error(err, fmt::format("cannot connect to {}", address.to_string()));
  }
  return fd;
}

int finish_connect(int fd) {
  int problem = 0;
  socklen_t length = sizeof problem;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length) != 0) return errno;
  return problem;
}

void tune_control_socket(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Moved read_some(int fd, void* data, size_t bytes, size_t* count, int* problem) {
  *count = 0;
  for (;;) {
    const ssize_t got = ::recv(fd, data, bytes, 0);
    if (got > 0) {
      *count = static_cast<size_t>(got);
      return Moved::kSome;
    }
    if (got == 0) return Moved::kClosed;
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Moved::kNothing;
    if (problem != nullptr) *problem = errno;
    return Moved::kClosed;
  }
}

uint64_t unacknowledged_bytes(int fd) {
  int bytes = 0;
  return ::ioctl(fd, SIOCOUTQ, &bytes) == 0 ? static_cast<uint64_t>(bytes) : 0;
}

Moved write_some(int fd, const void* data, size_t bytes, size_t* count, int* problem) {
  *count = 0;
  for (;;) {
    const ssize_t put = ::send(fd, data, bytes, MSG_NOSIGNAL);
    if (put >= 0) {
      *count = static_cast<size_t>(put);
      return Moved::kSome;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Moved::kNothing;
    if (problem != nullptr) *problem = errno;
    return Moved::kClosed;
  }
}

bool write_whole(int fd, const void* data, size_t bytes) {
  size_t count = 0;
  return write_some(fd, data, bytes, &count) == Moved::kSome && count == bytes;
}

}  // namespace libcomm
