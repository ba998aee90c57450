// The doorbell between helper threads and a caller that sleeps: nothing that rang since the
// caller's last look is slept through.
#include <gtest/gtest.h>
#include <poll.h>

#include "transports/tcp/relay.h"

namespace libcomm::test {
namespace {

class DoorbellTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = Doorbell::make();
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    bell_ = *std::move(made);
  }
  bool would_wake() {
    pollfd awaited{bell_->wait_handle().fd, POLLIN, 0};
    return ::poll(&awaited, 1, 0) == 1;
  }
  std::unique_ptr<Doorbell> bell_;
};

TEST_F(DoorbellTest, IsQuietWhenNothingHappened) {
  bell_->look();
  EXPECT_FALSE(would_wake());
}

TEST_F(DoorbellTest, WakesForWhatHappenedBetweenTheLookAndTheSleep) {
  bell_->look();
  bell_->ring();
  EXPECT_TRUE(would_wake());
}

TEST_F(DoorbellTest, WakesForWhatHappensDuringTheSleep) {
  bell_->look();
  pollfd awaited{bell_->wait_handle().fd, POLLIN, 0};
  bell_->ring();
  EXPECT_EQ(::poll(&awaited, 1, 0), 1);
}

TEST_F(DoorbellTest, IsQuietAgainOnceTheCallerHasLooked) {
  bell_->look();
  EXPECT_FALSE(would_wake());
  bell_->ring();
  bell_->look();
  EXPECT_FALSE(would_wake());
}

}  // namespace
}  // namespace libcomm::test
