// Many callers at one door, slow ones and strangers among them.
#include "src/bootstrap/doorkeeper.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <thread>

namespace libcomm {
namespace {

constexpr uint32_t kCallers = 40;

Key the_key() {
  Key key;
  key.fill(7);
  return key;
}

Listeners listen_here() {
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto listeners =
      Listeners::open({SocketAddress::from(reinterpret_cast<const sockaddr*>(&local))});
  EXPECT_TRUE(listeners.is_ok()) << listeners.status().to_string();
  return *std::move(listeners);
}

// A doorkeeper that lets eight wait, in a loop on a thread of its own.
class Door {
 public:
  explicit Door(size_t expected) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), expected_(expected) {
    rlimit before{};
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit small = before;
    small.rlim_cur = 64;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &small), 0);
    door_.emplace(epoll_.get(), listen_here(), the_key(), 0, kCallers);
    EXPECT_EQ(Doorkeeper::max_pending(), 8u);
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    thread_ = std::thread([this] { run(); });
  }
  ~Door() {
    over_ = true;
    thread_.join();
  }

  SocketAddress address() const { return door_->endpoint().front(); }
  // Waits for all that are expected.
  std::set<uint32_t> arrived() {
    for (int i = 0; i < 60'000 && !complete_; ++i) ::usleep(1000);
    over_ = true;
    thread_.join();
    thread_ = std::thread([] {});
    std::set<uint32_t> ranks;
    for (const Arrival& arrival : arrivals_) ranks.insert(arrival.hello.from);
    return ranks;
  }
  size_t most_sockets() const { return most_sockets_; }

 private:
  void run() {
    while (!over_) {
      epoll_event events[16];
      const int count = ::epoll_wait(epoll_.get(), events, 16, door_->expire(20));
      for (int i = 0; i < count; ++i) door_->on_event(events[i].data.fd, &arrivals_);
      most_sockets_ = std::max(most_sockets_, door_->sockets());
      complete_ = arrivals_.size() >= expected_;
    }
  }

  UniqueFd epoll_;
  const size_t expected_;
  std::optional<Doorkeeper> door_;
  std::vector<Arrival> arrivals_;
  size_t most_sockets_ = 0;
  std::atomic<bool> complete_{false};
  std::atomic<bool> over_{false};
  std::thread thread_;
};

UniqueFd connected_to(const SocketAddress& address) {
  int problem = 0;
  auto fd = start_connect(address, &problem);
  EXPECT_TRUE(fd.is_ok());
  pollfd writable{fd->get(), POLLOUT, 0};
  EXPECT_EQ(::poll(&writable, 1, 60'000), 1);
  EXPECT_EQ(finish_connect(fd->get()), 0);
  return *std::move(fd);
}

TEST(Doorkeeper, LetsAllInWhoAreSlowToProve) {
  Door door(kCallers);
  struct Caller {
    UniqueFd fd;
    CallerHandshake handshake;
  };
  std::vector<Caller> callers;
  for (uint32_t i = 0; i < kCallers; ++i) {
    callers.push_back({connected_to(door.address()), CallerHandshake(the_key(), 99, i, 0, 0)});
    EXPECT_EQ(callers.back().handshake.start(callers.back().fd.get()), Handshake::kAgain);
  }
  // Longer than anybody who keeps silent has, once for those that are let wait.
  ::usleep(static_cast<useconds_t>(1.5e6 * Doorkeeper::kLeastPatience));
  for (Caller& caller : callers) {
    pollfd readable{caller.fd.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&readable, 1, 60'000), 1);
    EXPECT_EQ(caller.handshake.step(caller.fd.get()), Handshake::kDone);
  }
  EXPECT_EQ(door.arrived().size(), kCallers);
  EXPECT_LE(door.most_sockets(), 1u + 8u);  // the listener among them
}

TEST(Doorkeeper, LetsOneInBehindManyWhoKeepSilent) {
  Door door(1);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 30; ++i) silent.push_back(connected_to(door.address()));
  UniqueFd fd = connected_to(door.address());
  CallerHandshake caller(the_key(), 99, 5, 0, 0);
  Handshake state = caller.start(fd.get());
  while (state == Handshake::kAgain) {
    pollfd readable{fd.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 60'000), 1);
    state = caller.step(fd.get());
  }
  EXPECT_EQ(state, Handshake::kDone);
  EXPECT_EQ(door.arrived(), std::set<uint32_t>{5});
  EXPECT_LE(door.most_sockets(), 1u + 8u);
}

// They know the protocol, and not the key. With the patience that callers of the group have, they
// would keep the one out for longer than it waits here.
TEST(Doorkeeper, LetsOneInBehindManyOfAnotherGroup) {
  Door door(1);
  Key other_key = the_key();
  other_key[0] = 8;
  std::vector<UniqueFd> others;
  for (int i = 0; i < 60; ++i) {
    others.push_back(connected_to(door.address()));
    CallerHandshake other(other_key, 99, 5, 0, 0);
    EXPECT_EQ(other.start(others.back().get()), Handshake::kAgain);
  }
  UniqueFd fd = connected_to(door.address());
  CallerHandshake caller(the_key(), 99, 5, 0, 0);
  Handshake state = caller.start(fd.get());
  while (state == Handshake::kAgain) {
    pollfd readable{fd.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 60'000), 1);
    state = caller.step(fd.get());
  }
  EXPECT_EQ(state, Handshake::kDone);
  EXPECT_EQ(door.arrived(), std::set<uint32_t>{5});
}

}  // namespace
}  // namespace libcomm
