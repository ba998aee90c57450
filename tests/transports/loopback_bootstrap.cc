#include "tests/transports/loopback_bootstrap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace libcomm::test {
namespace {

struct Ends {
  UniqueFd initiator;
  UniqueFd acceptor;
};

Result<Ends> connect_over_loopback() {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Ends ends;
  ends.initiator = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener || !ends.initiator) return system_error(errno, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof address;
  if (::bind(listener.get(), raw, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), raw, &length) != 0 ||
      ::connect(ends.initiator.get(), raw, length) != 0) {
    return system_error(errno, "connecting over 127.0.0.1");
  }
  ends.acceptor =
      UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!ends.acceptor) return system_error(errno, "accept");
  ::fcntl(ends.initiator.get(), F_SETFL, O_NONBLOCK);
  return ends;
}

}  // namespace

Result<UniqueFd> LoopbackHub::connect(int from, int to, Purpose purpose, uint32_t index) {
  COMM_ASSIGN(Ends ends, connect_over_loopback());
  const std::lock_guard lock(mutex_);
  UniqueFd& place = arrived_[{from, to, static_cast<uint32_t>(purpose), index}];
  if (place) return error(Code::kInternal, "two connections from {} to {} at {}", from, to, index);
  place = std::move(ends.acceptor);
  return std::move(ends.initiator);
}

UniqueFd LoopbackHub::take(int from, int to, Purpose purpose, uint32_t index) {
  const std::lock_guard lock(mutex_);
  const auto found = arrived_.find({from, to, static_cast<uint32_t>(purpose), index});
  if (found == arrived_.end()) return {};
  UniqueFd fd = std::move(found->second);
  arrived_.erase(found);
  return fd;
}

std::vector<std::string> LoopbackHub::exchange(int rank, const std::string& mine) {
  std::unique_lock lock(mutex_);
  texts_.resize(static_cast<size_t>(nranks_));
  texts_[static_cast<size_t>(rank)] = mine;
  if (++came_ == nranks_) {
    result_ = std::exchange(texts_, {});
    came_ = 0;
    ++round_;
    all_came_.notify_all();
  } else {
    const uint64_t round = round_;
    all_came_.wait(lock, [&] { return round_ != round; });
  }
  return result_;
}

Status LoopbackBootstrap::all_gather(void* data, size_t bytes_each, const std::atomic<bool>*,
                                     SetupCall) {
  auto* bytes = static_cast<char*>(data);
  const std::string mine(bytes + static_cast<size_t>(rank_) * bytes_each, bytes_each);
  const std::vector<std::string> all = hub_->exchange(rank_, mine);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].size() != bytes_each) {
      return error(Code::kInternal, "rank {} gathers {} bytes, not {}", rank, all[rank].size(),
                   bytes_each);
    }
    std::memcpy(bytes + rank * bytes_each, all[rank].data(), bytes_each);
  }
  return Status::ok();
}

}  // namespace libcomm::test
