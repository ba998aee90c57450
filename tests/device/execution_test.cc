// What the engine makes of the words of an executor's kernel.
#include <gtest/gtest.h>

#include "src/communicator/device_execution.h"

namespace libcomm {
namespace {

using cuda::await_word;

class AtWork : public testing::Test {
 protected:
  std::vector<int> awaited() const {
    std::vector<int> peers;
    execution.awaited_peers(&peers);
    return peers;
  }

  DeviceWords words;
  DeviceExecution execution{&words, 5, [] { return Status::ok(); }};
};

TEST_F(AtWork, IsDoneWhenItsLaunchHasEnded) {
  Progress progress = Progress::kMoved;
  words.begun = words.ended = 4;
  EXPECT_FALSE(execution.has_begun());
  ASSERT_TRUE(execution.advance(&progress));
  EXPECT_EQ(progress, Progress::kStuck);
  words.begun = words.ended = 5;
  EXPECT_TRUE(execution.has_begun());
  ASSERT_TRUE(execution.advance(&progress));
  EXPECT_EQ(progress, Progress::kDone);
}

TEST_F(AtWork, AwaitsThoseOfWhomLanesSaySo) {
  EXPECT_EQ(awaited(), std::vector<int>{});
  words.awaits[0] = await_word(0, 1);
  words.awaits[3] = await_word(7, 900);
  EXPECT_EQ(awaited(), (std::vector<int>{0, 7}));
  words.awaits[0] = await_word(-1, 2);
  EXPECT_EQ(awaited(), std::vector<int>{7});
}

TEST_F(AtWork, HasLookedWhenALaneThatWaitsHasSaidSoTwiceSince) {
  words.awaits[2] = await_word(1, 8);
  EXPECT_FALSE(execution.has_looked(1));
  EXPECT_FALSE(execution.has_looked(1)) << "said before";
  words.awaits[2] = await_word(1, 9);
  EXPECT_FALSE(execution.has_looked(1)) << "perhaps of a look before";
  words.awaits[2] = await_word(-1, 10);
  EXPECT_FALSE(execution.has_looked(1)) << "it waits no more";
  words.awaits[2] = await_word(4, 11);
  EXPECT_TRUE(execution.has_looked(1));
  EXPECT_FALSE(execution.has_looked(2)) << "a new question";
  words.awaits[2] = await_word(4, 12);
  words.awaits[0] = await_word(4, 1);
  EXPECT_FALSE(execution.has_looked(2)) << "two lanes once each";
  words.awaits[0] = await_word(4, 2);
  EXPECT_TRUE(execution.has_looked(2));
}

}  // namespace
}  // namespace libcomm
