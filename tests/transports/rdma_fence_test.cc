// Fencing and replacing queue pairs in orders of events that traffic seldom brings about: a hand
// plays the other end.
#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_hand_peer.h"
#include "transports/rdma/receiver.h"
#include "transports/rdma/sender.h"

namespace libcomm::test {
namespace {

using namespace rdma;

class RdmaFence : public OnRdmaDouble {};

// A channel end that fails queue pair 1 and replaces queue pair 0 when a message comes, and notes in
// which order it hears of arrivals and drains.
class Order final : public ChannelEnd {
 public:
  explicit Order(HandGround& ground)
      : ChannelEnd(ground.context, HandGround::name(), ground.budget(), false) {
    EXPECT_TRUE(ChannelEnd::open(std::move(ground.near), 65536, 65536, {64, 64}).is_ok());
  }
  void connect(HandPeer& peer) {
    EXPECT_TRUE(bundle_->connect(peer.end()).is_ok());
    peer.connect(describe());
    connected_ = true;
  }
  Status look() {
    bool moved = false;
    return ChannelEnd::look(&moved);
  }
  std::function<void()> before_it_fails;
  std::vector<std::string> heard;

 private:
  Status on_message(const Message&) override {
    before_it_fails();
    COMM_TRY(fail_line(1, "the test says so"));
    return bundle_->rebuild(0, 1);
  }
  Status on_sent(int) override { return Status::ok(); }
  Status on_arrived(int index, const Immediate&) override {
    heard.push_back("arrival on " + std::to_string(index));
    return Status::ok();
  }
  Status on_failed(int) override { return Status::ok(); }
  Status on_drained(int index) override {
    heard.push_back("drain of " + std::to_string(index));
    bundle_->destroy(index);
    enter(index, Phase::kFenced);
    return Status::ok();
  }
  Status on_turn() override { return Status::ok(); }
};

TEST_F(RdmaFence, WhatARebuildSetsAsideComesBeforeTheFencesOfOtherQueuePairs) {
  HandGround ground(2);
  Order end(ground);
  HandPeer peer(ground, true);
  end.connect(peer);
  end.before_it_fails = [&] { peer.write(1, 0, ArrivalHeader(), Immediate{}); };
  peer.say(MessageType::kReady, QpNews{});
  ASSERT_TRUE(until([&] {
    EXPECT_TRUE(end.look().is_ok());
    return end.heard.size() >= 2;
  }));
  EXPECT_EQ(end.heard, (std::vector<std::string>{"arrival on 1", "drain of 1"}));
}

}  // namespace
}  // namespace libcomm::test
