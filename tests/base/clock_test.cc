// Deadlines: zero means never, and what is left for poll(2) is rounded so that no waiter spins.
#include "src/base/clock.h"

#include <gtest/gtest.h>

namespace libcomm {
namespace {

TEST(Deadline, WithoutALengthNeverPasses) {
  EXPECT_FALSE(Deadline().passed());
  EXPECT_EQ(Deadline().poll_ms(250), 250);
  EXPECT_FALSE(Deadline::from_knob(0).passed());
  EXPECT_EQ(Deadline::from_knob(0).poll_ms(10), 10);
}

TEST(Deadline, InThePastHasPassedAndLeavesNoTime) {
  const Deadline deadline = Deadline::after(Seconds(-1));
  EXPECT_TRUE(deadline.passed());
  EXPECT_EQ(deadline.poll_ms(1000), 0);
}

TEST(Deadline, LeavesAtMostTheCap) { EXPECT_EQ(Deadline::after(Seconds(3600)).poll_ms(20), 20); }

TEST(Deadline, RoundsTheTimeLeftUpSoThatPollDoesNotSpinBeforeIt) {
  const Deadline deadline = Deadline::after(Seconds(0.0005));
  const int left = deadline.poll_ms(1000);
  // Either it was still ahead, and a whole millisecond is asked for, or it has passed by now.
  EXPECT_TRUE(left == 1 || deadline.passed()) << left;
}

TEST(Deadline, FarBeyondTheClocksRangeIsNever) {
  EXPECT_FALSE(Deadline::after(Seconds(1e300)).passed());
}

}  // namespace
}  // namespace libcomm
