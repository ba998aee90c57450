// Descriptors from one process to another: who gets them, and when the wait for one ends.
#include "transports/pass_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

namespace libcomm {
namespace {

const Proof kProof = {1, 2, 3, 4};

// No other test, in whichever process, has it.
Nonce fresh_nonce() {
  std::random_device random;
  return {uint64_t{random()} << 32 | random(), static_cast<uint64_t>(::getpid())};
}

TEST(PassedDescriptor, IsTheOwnersAndComesWithItsFacts) {
  const UniqueFd counter(::eventfd(7, EFD_CLOEXEC));
  const Nonce nonce = fresh_nonce();
  const auto give = [&](uint64_t wanted) -> Result<PassedFd> {
    if (wanted != 5) return error(Code::kSystem, "there is only one");
    return PassedFd{UniqueFd(::fcntl(counter.get(), F_DUPFD_CLOEXEC, 0)), {10, 20, 30}};
  };
  for (const FdWay way : {FdWay::kAbstractSocket, FdWay::kPathSocket}) {
    auto server = FdServer::start(way, nonce, give, {kProof});
    ASSERT_TRUE(server.is_ok()) << server.status().to_string();
    auto passed = fetch_fd(way, nonce, kProof, 5, Deadline::after(Seconds(60)));
    ASSERT_TRUE(passed.is_ok()) << passed.status().to_string();
    EXPECT_EQ(passed->facts, (std::array<uint64_t, 3>{10, 20, 30}));
    uint64_t value = 1;
    ASSERT_EQ(::write(counter.get(), &value, sizeof value), static_cast<ssize_t>(sizeof value));
    ASSERT_EQ(::read(passed->fd.get(), &value, sizeof value), static_cast<ssize_t>(sizeof value));
    EXPECT_EQ(value, way == FdWay::kAbstractSocket ? 8U : 1U) << "another descriptor";
    EXPECT_FALSE(fetch_fd(way, nonce, kProof, 6, Deadline::after(Seconds(60))).is_ok());
  }
}

TEST(PassedDescriptor, IsNotForStrangers) {
  const Nonce nonce = fresh_nonce();
  std::atomic<int> asked{0};
  const auto give = [&](uint64_t) -> Result<PassedFd> {
    ++asked;
    return error(Code::kSystem, "there is none");
  };
  auto server = FdServer::start(FdWay::kAbstractSocket, nonce, give, {kProof});
  ASSERT_TRUE(server.is_ok());
  const Proof wrong = {1, 2, 3, 5};
  EXPECT_FALSE(
      fetch_fd(FdWay::kAbstractSocket, nonce, wrong, 0, Deadline::after(Seconds(60))).is_ok());
  EXPECT_EQ(asked, 0);
}

// The owner hangs: the wait ends by who waits, not by the deadline.
TEST(PassedDescriptor, IsAwaitedOnlyAsLongAsItIsWanted) {
  const Nonce nonce = fresh_nonce();
  std::atomic<bool> over{false}, asked{false};
  const auto give = [&](uint64_t) -> Result<PassedFd> {
    asked = true;
    while (!over) ::usleep(1000);
    return error(Code::kSystem, "too late");
  };
  auto server = FdServer::start(FdWay::kAbstractSocket, nonce, give, {kProof});
  ASSERT_TRUE(server.is_ok());
  const auto fetched = fetch_fd(FdWay::kAbstractSocket, nonce, kProof, 0,
                                Deadline::after(Seconds(100'000)), [&] { return asked.load(); });
  EXPECT_FALSE(fetched.is_ok());
  over = true;
}

}  // namespace
}  // namespace libcomm
