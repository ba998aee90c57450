// What the fake transport does on purpose: delays, reordering, deaths, all from a seed.
#include "tests/transports/pump.h"
#include "transports/fake/transport.h"

namespace libcomm::test {
namespace {

struct FakePair {
  explicit FakePair(const FakeOptions& options)
      : network(std::make_shared<FakeNetwork>(2, options)),
        zero(make_fake_transport(network, 0)),
        one(make_fake_transport(network, 1)) {}
  Link open(int lane = 0) { return open_link(*zero, *one, 0, 1, lane); }

  std::shared_ptr<FakeNetwork> network;
  std::unique_ptr<Transport> zero, one;
};

// How often the receiver asked before each of twenty segments showed itself.
std::vector<int> polls_per_segment(const FakeOptions& options) {
  FakePair pair(options);
  Link link = pair.open();
  std::vector<int> polls;
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(try_send(*link.send, SendWay::kSlot, numbered(i), nullptr, 0));
    polls.push_back(0);
    EXPECT_TRUE(until([&] {
      ++polls.back();
      return try_receive(*link.recv, RecvWay::kPeek, numbered(i), {});
    }));
  }
  return polls;
}

TEST(Fake, DelaysSegmentsAsTheSeedSays) {
  const std::vector<int> first = polls_per_segment({.seed = 1, .max_delay = 7});
  EXPECT_EQ(first, polls_per_segment({.seed = 1, .max_delay = 7}));
  EXPECT_NE(first, polls_per_segment({.seed = 2, .max_delay = 7}));
  EXPECT_GT(*std::max_element(first.begin(), first.end()), 4);
  EXPECT_LE(*std::max_element(first.begin(), first.end()), 8);
  EXPECT_EQ(polls_per_segment({.seed = 1}), std::vector<int>(20, 1));
}

TEST(Fake, LetsALaterSegmentOfAnotherChannelOvertake) {
  FakePair pair({.seed = 3, .max_delay = 20});
  int overtaken = 0;
  for (int lane = 0; lane < 20; lane += 2) {
    Link first = pair.open(lane), second = pair.open(lane + 1);
    ASSERT_TRUE(try_send(*first.send, SendWay::kSlot, numbered(1), nullptr, 0));
    ASSERT_TRUE(try_send(*second.send, SendWay::kSlot, numbered(1), nullptr, 0));
    ASSERT_TRUE(until([&] {
      if (try_receive(*first.recv, RecvWay::kPeek, numbered(1), {})) return true;
      if (!try_receive(*second.recv, RecvWay::kPeek, numbered(1), {})) return false;
      ++overtaken;
      return true;
    }));
  }
  EXPECT_GT(overtaken, 0);
  EXPECT_LT(overtaken, 10);
}

TEST(Fake, MovesPostedMemoryInParts) {
  FakePair pair({.seed = 4, .short_io = true});
  Link link = pair.open();
  const Bytes data = pattern(4096, 1);
  ASSERT_TRUE(try_send(*link.send, SendWay::kPost, numbered(1), data.data(), data.size()));
  int calls = 1;
  while (completed(*link.send) == 0) ++calls;
  EXPECT_GT(calls, 1);
  Bytes dst(4096);
  bool done = false;
  for (calls = 0; !done; ++calls) {
    ASSERT_TRUE(link.recv->receive_into(numbered(1), dst.data(), dst.size(), &done).is_ok());
  }
  EXPECT_GT(calls, 1);
  EXPECT_EQ(dst, data);
}

TEST(Fake, KillsARankAtItsStep) {
  FakePair pair({.credits = 8});
  pair.network->kill_at(0, 3);
  Link link = pair.open();
  for (uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(try_send(*link.send, SendWay::kSlot, numbered(i), nullptr, 0));
  }
  bool accepted = true;
  Status status = link.send->post(numbered(3), nullptr, 0, &accepted);
  EXPECT_EQ(status.code(), Code::kSystem) << "the dead rank's own call";
  EXPECT_FALSE(accepted);
  EXPECT_EQ(pair.network->steps(0), 3u);

  // What it had sent arrives; then its peer is told who is gone.
  for (uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(try_receive(*link.recv, RecvWay::kInto, numbered(i), {}));
  }
  Segment segment;
  status = link.recv->peek(&segment);
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 0);
}

TEST(Fake, StallsARankWithoutAnError) {
  FakePair pair({});
  Link link = pair.open();
  ASSERT_TRUE(try_send(*link.send, SendWay::kSlot, numbered(1), nullptr, 0));
  pair.network->stall(1);
  Segment segment;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(link.recv->peek(&segment).is_ok());
    EXPECT_FALSE(segment.ready);
  }
  pair.network->stall(0);
  std::byte* slot = nullptr;
  ASSERT_TRUE(link.send->reserve(&slot).is_ok());
  EXPECT_EQ(slot, nullptr);
}

TEST(Fake, HasAsManyCreditsAsAsked) {
  for (int credits = 1; credits <= 4; ++credits) {
    FakePair pair({.credits = credits});
    Link link = pair.open();
    int sent = 0;
    while (try_send(*link.send, SendWay::kSlot, numbered(1), nullptr, 0)) ++sent;
    EXPECT_EQ(sent, credits);
  }
}

TEST(Fake, RefusesARankThatIsNotOnTheNetwork) {
  FakePair pair({});
  EXPECT_EQ(pair.zero->connect(2, 0).status().code(), Code::kInternal);
  EXPECT_EQ(pair.zero->accept(-1, 0).status().code(), Code::kInternal);
}

}  // namespace
}  // namespace libcomm::test
