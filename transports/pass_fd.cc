#include "transports/pass_fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <thread>

#include "src/base/thread.h"

namespace libcomm {
namespace {

// How long one client may take to show its proof before the next is served.
constexpr Seconds kClientPatience{1.0};

// How long a server without a descriptor to spare waits for one.
constexpr int kNoDescriptorsMs = 10;

// What a client sends.
struct Request {
  Proof proof;
  uint64_t wanted;
};

struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
};

// Anybody on the host can call an abstract name, and would keep those who may waiting.
bool is_of_this_user(int client) {
  ucred caller{};
  socklen_t length = sizeof caller;
  if (::getsockopt(client, SOL_SOCKET, SO_PEERCRED, &caller, &length) != 0) return false;
  return caller.uid == ::geteuid() || caller.uid == 0;
}

Address socket_address(FdWay way, const Nonce& nonce) {
  const std::string text = fmt::format(
      "{}libcomm-{:016x}{:016x}", way == FdWay::kPathSocket ? "/tmp/." : "", nonce[0], nonce[1]);
  Address address;
  address.name.sun_family = AF_UNIX;
  // An abstract name begins with a zero byte.
  const size_t skip = way == FdWay::kPathSocket ? 0 : 1;
  std::memcpy(address.name.sun_path + skip, text.data(), text.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size() + 1);
  return address;
}

// True when fd became readable before the deadline, and before somebody gave up.
bool readable(int fd, const Deadline& deadline, const std::function<bool()>& given_up = nullptr) {
  while (!deadline.passed() && !(given_up && given_up())) {
    pollfd item{fd, POLLIN, 0};
    const int count = ::poll(&item, 1, deadline.poll_ms(given_up ? 50 : 1000));
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return false;
  }
  return false;
}

Status send_fd(int socket, const PassedFd& passed) {
  auto facts = passed.facts;
  const int fd = passed.fd.get();
  iovec data{facts.data(), sizeof facts};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) != sizeof facts)
    return system_error(errno, "passing memory");
  return {};
}

Result<PassedFd> receive_fd(int socket) {
  PassedFd passed;
  iovec data{passed.facts.data(), sizeof passed.facts};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return system_error(errno, "receiving memory");
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int)))
    return error(Code::kSystem, "a peer refused to pass its memory");
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  passed.fd = UniqueFd(fd);
  if (count != sizeof passed.facts)
    return error(Code::kSystem, "a peer passed memory without what belongs to it");
  return passed;
}

}  // namespace

const char* name_of(FdWay way) {
  switch (way) {
    case FdWay::kProc:
      return "/proc";
    case FdWay::kAbstractSocket:
      return "an abstract socket";
    case FdWay::kPathSocket:
      return "a socket in /tmp";
  }
  return "?";
}

Result<UniqueFd> open_peer_fd(int64_t pid, int fd) {
  const std::string path = fmt::format("/proc/{}/fd/{}", pid, fd);
  UniqueFd opened(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (opened) return opened;
  const int err = errno;
  // Where /proc is not mounted.
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (process)
    opened = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
  if (opened) return opened;
  return system_error(err, "opening " + path);
}

Result<std::unique_ptr<FdServer>> FdServer::start(FdWay way, const Nonce& nonce, Give give,
                                                  std::vector<Proof> expected) {
  std::unique_ptr<FdServer> server(new FdServer);
  server->give_ = std::move(give);
  server->expected_ = std::move(expected);
  server->listener_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!server->listener_) return system_error(errno, "making a Unix socket");
  const Address address = socket_address(way, nonce);
  if (::bind(server->listener_.get(), reinterpret_cast<const sockaddr*>(&address.name),
             address.length) != 0)
    return system_error(errno, "naming a Unix socket");
  if (way == FdWay::kPathSocket) server->path_ = address.name.sun_path;
  if (::listen(server->listener_.get(), SOMAXCONN) != 0)
    return system_error(errno, "listening on a Unix socket");
  server->stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!server->stop_) return system_error(errno, "making an eventfd");
  COMM_ASSIGN(server->thread_, start_thread("comm-fds", [raw = server.get()] { raw->serve(); }));
  return server;
}

FdServer::~FdServer() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }
  if (!path_.empty()) ::unlink(path_.c_str());
}

void FdServer::serve() {
  while (true) {
    pollfd items[2] = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    if (::poll(items, 2, -1) < 0 && errno != EINTR) return;
    if (items[0].revents != 0) return;
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client)
      answer(std::move(client));
    else if (errno == EMFILE || errno == ENFILE)  // the caller stays in the queue
      (void)::poll(items, 1, kNoDescriptorsMs);
  }
}

void FdServer::answer(UniqueFd client) const {
  Request request{};
  if (!is_of_this_user(client.get())) return;
  if (!readable(client.get(), Deadline::after(kClientPatience))) return;
  if (::recv(client.get(), &request, sizeof request, 0) != sizeof request) return;
  if (std::find(expected_.begin(), expected_.end(), request.proof) == expected_.end()) return;
  const Result<PassedFd> given = give_(request.wanted);
  if (given) (void)send_fd(client.get(), *given).is_ok();
}

Result<PassedFd> fetch_fd(FdWay way, const Nonce& nonce, const Proof& proof, uint64_t wanted,
                          Deadline deadline, const std::function<bool()>& given_up) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return system_error(errno, "making a Unix socket");
  const Address address = socket_address(way, nonce);
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.name),
                   address.length) != 0) {
    // EAGAIN: more callers wait there than the kernel lets.
    if (errno != EAGAIN || deadline.passed() || (given_up && given_up()))
      return system_error(errno, fmt::format("fetching memory through {}", name_of(way)));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Request request{proof, wanted};
  if (::send(socket.get(), &request, sizeof request, MSG_NOSIGNAL) != sizeof request)
    return system_error(errno, fmt::format("fetching memory through {}", name_of(way)));
  if (!readable(socket.get(), deadline, given_up))
    return error(Code::kSystem, "no answer while fetching memory through {}", name_of(way));
  return receive_fd(socket.get());
}

}  // namespace libcomm
