// Fencing and replacing queue pairs in orders of events that traffic seldom brings about: a hand
// plays the other end.
#include <thread>

#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_hand_peer.h"
#include "transports/rdma/receiver.h"
#include "transports/rdma/sender.h"

namespace libcomm::test {
namespace {

using namespace rdma;

class RdmaFence : public OnRdmaDouble {};

// A channel end that fails queue pair 1 and replaces queue pair 0 when a message comes, and notes
// in which order it hears of arrivals and drains.
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

// Its number may be the replacement's.
TEST_F(RdmaFence, WhatAnEventSaidOfAQueuePairEndsWithIt) {
  HandGround ground(1);
  HandPeer peer(ground, true);
  Nic& nic = *ground.context->nics.front();
  const uint32_t number = peer.bundle().qp(0)->wire().number;
  double_.kill(number);
  nic.take_events();
  EXPECT_EQ(nic.event_count(), 1u);
  peer.bundle().destroy(0);
  EXPECT_FALSE(nic.take_broken(number));
}

// A receiving end, and a hand that sends.
class RdmaFencedReceiver : public RdmaFence {
 protected:
  void SetUp() override {
    RdmaFence::SetUp();
    if (IsSkipped()) return;
    ground_ = std::make_unique<HandGround>(1);
    peer_ = std::make_unique<HandPeer>(*ground_, true);
    auto made = Receiver::open(ground_->context, HandGround::name(), ground_->budget(),
                               std::move(ground_->near));
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    receiver_ = *std::move(made);
    ASSERT_TRUE(until([&] { return look() && peer_->opens(); }));
  }
  // Until the channel has failed.
  Status fails() {
    Segment none;
    Status status;
    EXPECT_TRUE(until([&] {
      status = receiver_->peek(&none);
      return !status.is_ok();
    }));
    EXPECT_EQ(status.code(), Code::kRemote);
    EXPECT_EQ(status.peer(), 1);
    return status;
  }
  bool look() {
    Segment none;
    const Status status = receiver_->peek(&none);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return true;
  }
  template <typename T>
  bool hears(MessageType type, T* body) {
    return until([&] { return HasFailure() || (look() && peer_->hear(type, body)); }) &&
           !HasFailure();
  }
  void fence(int index, uint32_t epoch) {
    peer_->say(MessageType::kFence, HandPeer::fence(index, epoch));
    FenceWire fenced;
    ASSERT_TRUE(hears(MessageType::kFenced, &fenced));
    EXPECT_EQ(fenced.index, static_cast<uint32_t>(index));
    EXPECT_EQ(fenced.epoch, epoch);
  }
  std::unique_ptr<HandGround> ground_;
  std::unique_ptr<HandPeer> peer_;
  std::unique_ptr<Receiver> receiver_;
};

// The sender's port flaps while the receiver's is still down.
TEST_F(RdmaFencedReceiver, AReplacementThatWaitsForThePortCanBeFenced) {
  fence(0, 0);
  double_.port("double0", false);
  peer_->say(MessageType::kRebuild, peer_->rebuilt(0, 1));
  look();
  RebuildWire rebuilt;
  EXPECT_FALSE(peer_->hear(MessageType::kRebuilt, &rebuilt)) << "its port is down";
  fence(0, 1);
  double_.port("double0", true);
  look();
  EXPECT_FALSE(peer_->hear(MessageType::kRebuilt, &rebuilt)) << "that one was given up";
  peer_->say(MessageType::kRebuild, peer_->rebuilt(0, 2));
  ASSERT_TRUE(hears(MessageType::kRebuilt, &rebuilt));
  EXPECT_EQ(rebuilt.epoch, 2u);
}

// Wishes that wait for a port must not pile up.
TEST_F(RdmaFencedReceiver, AReplacementThatIsWishedForAgainAndAgainEndsTheChannel) {
  fence(0, 0);
  double_.port("double0", false);
  const RebuildWire wish = peer_->rebuilt(0, 1);
  peer_->say(MessageType::kRebuild, wish);
  look();
  peer_->say(MessageType::kRebuild, wish);
  EXPECT_NE(fails().message().find("rank 1 replaces at the wrong time queue pair 0"),
            std::string::npos);
  double_.port("double0", true);
}

TEST_F(RdmaFencedReceiver, AFenceThatIsAskedForTwiceEndsTheChannel) {
  fence(0, 0);
  peer_->say(MessageType::kFence, HandPeer::fence(0, 0));
  EXPECT_NE(fails().message().find("asks once more for the fence of queue pair 0"),
            std::string::npos);
}

// Each replacement is well-formed, and nothing ever goes over it.
TEST_F(RdmaFencedReceiver, QueuePairsThatAreReplacedWithoutEndEndTheChannel) {
  Status status;
  Segment none;
  for (uint32_t epoch = 0; status.is_ok() && epoch < 20; ++epoch) {
    peer_->say(MessageType::kFence, HandPeer::fence(0, epoch));
    FenceWire fenced;
    const auto hears = [&](MessageType type, auto* body) {
      return until([&] {
        status = receiver_->peek(&none);
        return !status.is_ok() || peer_->hear(type, body);
      });
    };
    ASSERT_TRUE(hears(MessageType::kFenced, &fenced));
    if (!status.is_ok()) break;
    peer_->say(MessageType::kRebuild, peer_->rebuilt(0, epoch + 1));
    RebuildWire rebuilt;
    ASSERT_TRUE(hears(MessageType::kRebuilt, &rebuilt));
  }
  EXPECT_NE(status.message().find("after 8 failures of its queue pairs without a success"),
            std::string::npos)
      << status.message();
}

// More than one look takes in waits its turn, so that whoever floods a channel does not stop it.
TEST_F(RdmaFencedReceiver, AFloodOfMessagesIsHeardBesideEverythingElse) {
  ArrivalHeader header;
  peer_->write(0, 0, header, Immediate{});
  look();
  for (int i = 0; i < 200; ++i) peer_->say(MessageType::kReady, QpNews{0, 0});
  peer_->say(MessageType::kFence, HandPeer::fence(1, 0));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  look();
  EXPECT_EQ(receiver_->statistics()->fenced_qps, 0u);
  FenceWire fenced;
  ASSERT_TRUE(hears(MessageType::kFenced, &fenced));
}

// An end that says much and reads nothing.
TEST_F(RdmaFence, AnswersThatNobodyReadsAreBounded) {
  HandGround ground(1);
  Control control(std::move(ground.near), 1);
  Status status;
  for (int i = 0; status.is_ok() && i < 100'000; ++i)
    status = control.send(MessageType::kFenced, FenceWire());
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_NE(status.message().find("bytes of answers unread"), std::string::npos)
      << status.message();
}

// On a busy machine a turn may take milliseconds: so many of them are too long to wait for.
TEST_F(RdmaFencedReceiver, HearsThePeerSoonHoweverFewItsTurnsAre) {
  look();
  peer_->say(MessageType::kFence, HandPeer::fence(0, 0));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  look();
  EXPECT_EQ(receiver_->statistics()->fenced_qps, 1u);
}

// The sender's queue pair fails while the channel opens, so that "all are ready" is about one that
// is fenced already.
TEST_F(RdmaFence, AReplacementGetsNoGrantBeforeTheSenderHasSaidThatItIsReady) {
  HandGround ground(1);
  HandPeer peer(ground, true);
  auto made =
      Receiver::open(ground.context, HandGround::name(), ground.budget(), std::move(ground.near));
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  Receiver& receiver = **made;
  Bytes dst(16 << 10);
  const auto look = [&] {  // for a segment that needs a grant
    bool done = false;
    const Status status = receiver.receive_into(numbered(1), dst.data(), dst.size(), &done);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return !HasFailure();
  };
  const int grants = 1;  // the queue pair
  EndWire theirs;
  peer.say(MessageType::kOffer, peer.end());
  ASSERT_TRUE(until([&] { return !look() || peer.hear(MessageType::kAnswer, &theirs); }));
  peer.connect(theirs);
  for (const int index : {0, grants}) {
    peer.say(MessageType::kFence, HandPeer::fence(index, 0));
    FenceWire fenced;
    ASSERT_TRUE(until([&] { return !look() || peer.hear(MessageType::kFenced, &fenced); }));
  }
  peer.say(MessageType::kReady, QpNews{kAllQps, 0});
  peer.say(MessageType::kRebuild, peer.rebuilt(grants, 1));
  RebuildWire rebuilt;
  ASSERT_TRUE(until([&] { return !look() || peer.hear(MessageType::kRebuilt, &rebuilt); }));
  for (int turn = 0; turn < 1000; ++turn) look();
  const auto posted = [&] { return double_.queue_pair(rebuilt.qp.number).posted_sends; };
  EXPECT_EQ(posted(), 0u) << "the hand's queue pair takes nothing yet";
  ASSERT_TRUE(peer.bundle().connect_one(grants, rebuilt.rail, rebuilt.qp).is_ok());
  peer.say(MessageType::kReady, QpNews{grants, 1});
  ASSERT_TRUE(until([&] { return !look() || posted() > 0; }));
}

// A segment of which a part has come has not come.
TEST_F(RdmaFencedReceiver, TellsWhenItLeavesWhatHasComeWhole) {
  ArrivalHeader header;
  peer_->write(0, 0, header, Immediate{});
  header.sequence = 1;
  header.parts = 2;
  peer_->write(0, kEntryBytes, header, Immediate{Immediate::kArrival, 0, 1});
  look();
  receiver_.reset();
  GoodbyeWire goodbye;
  ASSERT_TRUE(peer_->hear(MessageType::kGoodbye, &goodbye));
  EXPECT_EQ(goodbye.received, 1u);
}

// Takes all queue pairs that a device has left.
class Hoard {
 public:
  explicit Hoard(const Nic& nic) : nic_(nic) {
    auto channel = CompletionChannel::create(nic.verbs(), nic.context());
    EXPECT_TRUE(channel.is_ok());
    channel_.emplace(*std::move(channel));
    cq_.emplace(nic.verbs()->create_cq(nic.context(), 16, nullptr, channel_->get(), 0),
                Destroy<&Verbs::destroy_cq>{nic.verbs()});
  }
  void take() {
    for (;;) {
      ibv_qp_init_attr init{};
      init.send_cq = init.recv_cq = cq_->get();
      init.cap = {1, 1, 1, 1, 0};
      init.qp_type = IBV_QPT_RC;
      ibv_qp* qp = nic_.verbs()->create_qp(nic_.pd(), &init);
      if (qp == nullptr) return;
      taken_.emplace_back(qp, Destroy<&Verbs::destroy_qp>{nic_.verbs()});
    }
  }
  void give_back() { taken_.clear(); }

 private:
  const Nic& nic_;
  std::optional<CompletionChannel> channel_;
  std::optional<Cq> cq_;
  std::vector<Qp> taken_;
};

TEST_F(RdmaFencedReceiver, AReplacementThatTheDeviceRefusesIsTriedAgain) {
  Hoard hoard(*ground_->context->nics.front());
  fence(0, 0);
  const RebuildWire wish = peer_->rebuilt(0, 1);
  hoard.take();
  peer_->say(MessageType::kRebuild, wish);
  look();
  look();
  RebuildWire rebuilt;
  EXPECT_FALSE(peer_->hear(MessageType::kRebuilt, &rebuilt));
  hoard.give_back();
  ASSERT_TRUE(hears(MessageType::kRebuilt, &rebuilt));
  EXPECT_EQ(rebuilt.epoch, 1u);
  fence(0, 1);
}

// A sending end, and a hand that receives.
class RdmaFencedSender : public RdmaFence {
 protected:
  void SetUp() override {
    RdmaFence::SetUp();
    if (IsSkipped()) return;
    ground_ = std::make_unique<HandGround>(1);
    peer_ = std::make_unique<HandPeer>(*ground_, false);
    auto made = Sender::open(ground_->context, HandGround::name(), ground_->budget(),
                             std::move(ground_->near), releases_);
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    sender_ = *std::move(made);
    ASSERT_TRUE(until([&] { return look() && peer_->opens(); }));
    QpNews ready;
    ASSERT_TRUE(hears(MessageType::kReady, &ready));
  }
  bool look() {
    const Status status = sender_->progress(&completed_);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return status.is_ok();
  }
  template <typename T>
  bool hears(MessageType type, T* body) {
    return until([&] { return HasFailure() || (look() && peer_->hear(type, body)); }) &&
           !HasFailure();
  }
  void post(const std::byte* data, size_t bytes) {
    ASSERT_TRUE(until([&] {
      bool accepted = false;
      const Status status = sender_->post(numbered(1), data, bytes, &accepted);
      EXPECT_TRUE(status.is_ok()) << status.to_string();
      return accepted || HasFailure();
    }));
  }
  // Until the sender asks for the fence.
  void fails(int index, uint32_t epoch) {
    peer_->say(MessageType::kBroken, QpNews{static_cast<uint32_t>(index), epoch});
    FenceWire fence;
    ASSERT_TRUE(hears(MessageType::kFence, &fence));
    EXPECT_EQ(fence.index, static_cast<uint32_t>(index));
    EXPECT_EQ(fence.epoch, epoch);
  }
  std::unique_ptr<HandGround> ground_;
  std::unique_ptr<HandPeer> peer_;
  const std::shared_ptr<Releases> releases_ = std::make_shared<Releases>();
  std::unique_ptr<Sender> sender_;
  uint64_t completed_ = 0;
};

// What arrivals of the other direction say comes by another way than what grant entries say.
TEST_F(RdmaFencedSender, ReleasesMayBeSaidInAnyOrderButNotOfWhatWasNotSent) {
  for (int n = 0; n < 2; ++n) post(ground_->memory->data(), 8);
  releases_->there = 2;
  post(ground_->memory->data(), 8);
  peer_->grant(1, 0);  // says: none
  ASSERT_TRUE(until([&] { return look() && sender_->statistics()->entries == 1; }));
  post(ground_->memory->data(), 8);
  releases_->there = 5;
  bool accepted = false;
  const Status status = sender_->post(numbered(1), ground_->memory->data(), 8, &accepted);
  EXPECT_FALSE(accepted);
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_NE(status.message().find("released 5 arrivals of 4"), std::string::npos)
      << status.message();
}

TEST_F(RdmaFencedSender, AReplacementThatTheDeviceRefusesIsTriedAgainUnderTheSameNumber) {
  Hoard hoard(*ground_->context->nics.front());
  fails(0, 0);
  hoard.take();
  peer_->say(MessageType::kFenced, HandPeer::fence(0, 0));
  RebuildWire rebuild;
  look();
  look();
  EXPECT_FALSE(peer_->hear(MessageType::kRebuild, &rebuild));
  hoard.give_back();
  ASSERT_TRUE(hears(MessageType::kRebuild, &rebuild));
  EXPECT_EQ(rebuild.epoch, 1u) << "what the receiver expects next";
}

// It has received what the fence left over, so nothing of that is sent again: the places and the
// registration of what is complete are somebody else's.
TEST_F(RdmaFencedSender, WhatTheLeavingReceiverHasIsNotSentAgain) {
  peer_->grant(1, 0);
  peer_->grant(1, 1);
  peer_->bundle().qp(0)->fail();
  post(ground_->memory->data(), 16 << 10);
  post(ground_->memory->data(), 16 << 10);
  fails(0, 0);
  peer_->say(MessageType::kFenced, HandPeer::fence(0, 0));
  peer_->say(MessageType::kGoodbye, GoodbyeWire{UINT64_MAX});
  ASSERT_TRUE(until([&] { return look() && completed_ == 2; }));
  EXPECT_EQ(sender_->statistics()->sent_again, 0u);
}

}  // namespace
}  // namespace libcomm::test
