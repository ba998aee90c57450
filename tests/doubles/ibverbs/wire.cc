#include "tests/doubles/ibverbs/wire.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

constexpr uint32_t kProcesses = 1 << 12;
constexpr int kEventsAtATime = 32;
constexpr int kPacketsAtATime = 64;

socklen_t fill(const std::string& name, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (name.size() >= sizeof(address->sun_path))
    fatal("RDMA_DOUBLE_FABRIC is too long: %s", name.c_str() + (name[0] == 0));
  std::memcpy(address->sun_path, name.data(), name.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
}

int new_socket() {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) fatal("no socket for the fabric: %s", std::strerror(errno));
  return fd;
}

}  // namespace

Wire::Wire(const std::string& fabric) : fabric_(fabric), buffer_(sizeof(Header) + kMaxPayload) {
  std::random_device random;
  const uint32_t start = random() % kProcesses;
  listener_ = new_socket();
  for (uint32_t i = 0; i < kProcesses && process_ == 0; ++i) {
    const uint32_t number = (start + i) % kProcesses;
    if (number == 0) continue;
    sockaddr_un address;
    const socklen_t length = fill(address_of(number), &address);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0)
      process_ = number;
    else if (errno != EADDRINUSE)
      fatal("fabric %s: bind: %s", fabric.c_str(), std::strerror(errno));
  }
  if (process_ == 0) fatal("fabric %s: all %u numbers are taken", fabric.c_str(), kProcesses - 1);
  if (::listen(listener_, 1024) != 0) fatal("fabric: listen: %s", std::strerror(errno));
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (epoll_ < 0 || wake_ < 0) fatal("fabric: out of descriptors: %s", std::strerror(errno));
  watch(listener_, false, true);
  watch(wake_, false, true);
}

Wire::~Wire() {
  abandon();
  if (fabric_.find('/') != std::string::npos) ::unlink(address_of(process_).c_str());
}

void Wire::abandon() {
  for (auto& [fd, connection] : connections_) ::close(fd);
  connections_.clear();
  for (int* fd : {&listener_, &epoll_, &wake_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

std::string Wire::address_of(uint32_t process) const {
  const std::string number = std::to_string(process);
  if (fabric_.find('/') != std::string::npos) return fabric_ + "/nic" + number;
  return std::string(1, 0) + "rdma-double/" + fabric_ + "/" + number;
}

void Wire::watch(int fd, bool writes, bool add) const {
  epoll_event event{};
  event.events = EPOLLIN | (writes ? EPOLLOUT : 0u);
  event.data.fd = fd;
  if (::epoll_ctl(epoll_, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) != 0)
    fatal("fabric: epoll_ctl: %s", std::strerror(errno));
}

Wire::Connection* Wire::connection_to(uint32_t process) {
  const auto route = routes_.find(process);
  if (route != routes_.end()) return &connections_[route->second];
  sockaddr_un address;
  const socklen_t length = fill(address_of(process), &address);
  const int fd = new_socket();
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) {
    ::close(fd);
    return nullptr;
  }
  Connection& made = connections_[fd];
  made.fd = fd;
  made.process = process;
  routes_[process] = fd;
  watch(fd, false, true);
  Packet hello;
  hello.header.kind = Kind::kHello;
  hello.header.source = process_;
  send(process, hello);
  return &made;
}

bool Wire::send(uint32_t process, const Packet& packet) {
  Connection* connection = connection_to(process);
  if (connection == nullptr) return false;
  if (connection->backlog.empty()) {
    iovec parts[2] = {{const_cast<Header*>(&packet.header), sizeof(Header)},
                      {packet.payload.get(), packet.header.payload}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = packet.header.payload > 0 ? 2 : 1;
    if (::sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS) return false;
    watch(connection->fd, true, false);
  }
  std::vector<std::byte>& bytes =
      connection->backlog.emplace_back(sizeof(Header) + packet.header.payload);
  std::memcpy(bytes.data(), &packet.header, sizeof(Header));
  if (packet.header.payload > 0)
    std::memcpy(bytes.data() + sizeof(Header), packet.payload.get(), packet.header.payload);
  return true;
}

void Wire::flush(Connection& connection) {
  while (!connection.backlog.empty()) {
    const std::vector<std::byte>& bytes = connection.backlog.front();
    if (::send(connection.fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return;
      // The process is gone; reading what it has sent ends with the news.
      connection.backlog.clear();
      break;
    }
    connection.backlog.pop_front();
  }
  watch(connection.fd, false, false);
}

void Wire::accept_all() {
  for (;;) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    connections_[fd].fd = fd;
    watch(fd, false, true);
  }
}

// False when the connection is over.
bool Wire::read_some(Connection& connection, Arrivals* arrivals) {
  for (int i = 0; i < kPacketsAtATime; ++i) {
    const ssize_t got = ::recv(connection.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (static_cast<size_t>(got) < sizeof(Header)) return false;
    Packet packet;
    std::memcpy(&packet.header, buffer_.data(), sizeof(Header));
    const Header& header = packet.header;
    if (sizeof(Header) + header.payload != static_cast<size_t>(got))
      fatal("a packet of %zd bytes says that it has %u", got, header.payload);
    if (header.kind == Kind::kHello) {
      connection.process = header.source;
      routes_.emplace(header.source, connection.fd);
      continue;
    }
    if (header.payload > 0) {
      packet.payload = std::make_unique_for_overwrite<std::byte[]>(header.payload);
      std::memcpy(packet.payload.get(), buffer_.data() + sizeof(Header), header.payload);
    }
    arrivals->packets.push_back(std::move(packet));
  }
  return true;
}

void Wire::drop(int fd, Arrivals* arrivals) {
  const uint32_t process = connections_[fd].process;
  const auto route = routes_.find(process);
  if (route != routes_.end() && route->second == fd) routes_.erase(route);
  if (process != 0) arrivals->broken.push_back(process);
  ::close(fd);
  connections_.erase(fd);
}

void Wire::work(Arrivals* arrivals) {
  epoll_event events[kEventsAtATime];
  const int count = ::epoll_wait(epoll_, events, kEventsAtATime, 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == listener_) {
      accept_all();
    } else if (fd == wake_) {
      uint64_t ignored;
      [[maybe_unused]] const ssize_t got = ::read(wake_, &ignored, sizeof(ignored));
    } else if (const auto found = connections_.find(fd); found != connections_.end()) {
      Connection& connection = found->second;
      if ((events[i].events & EPOLLOUT) != 0) flush(connection);
      if (!read_some(connection, arrivals)) drop(fd, arrivals);
    }
  }
}

void Wire::wait(int64_t timeout_ns) const {
  epoll_event event;
  timespec time{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  if (::epoll_pwait2(epoll_, &event, 1, timeout_ns < 0 ? nullptr : &time, nullptr) < 0 &&
      errno == ENOSYS) {
    const int ms = timeout_ns < 0 ? -1 : static_cast<int>((timeout_ns + 999'999) / 1'000'000);
    ::epoll_wait(epoll_, &event, 1, ms);
  }
}

void Wire::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof(one));
}

}  // namespace rdma_double
