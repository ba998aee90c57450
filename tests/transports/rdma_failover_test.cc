// What happens when queue pairs and ports fail under traffic: nothing is lost, nothing comes twice,
// and no late packet lands in memory that was granted anew.
#include <cmath>
#include <deque>
#include <set>

#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_stream.h"
#include "tests/transports/rdma_world.h"

namespace libcomm::test {
namespace {

class RdmaFailover : public OnRdmaDouble {
 protected:
  static Link open(RdmaWorld& world) {
    return open_link(world.transport(0), world.transport(1), 0, 1);
  }
  // The numbers of the queue pairs that carry data to rank 1: those that have sent most.
  uint32_t busiest() const {
    uint64_t most = 0;
    uint32_t number = 0;
    for (const rdma_double_qp_t& qp : double_.queue_pairs()) {
      if (qp.sent_bytes <= most) continue;
      most = qp.sent_bytes;
      number = qp.number;
    }
    return number;
  }
  static const rdma::ChannelStatistics& of(RdmaWorld& world, int rank) {
    const auto all = world.rdma(rank).statistics();
    EXPECT_EQ(all.size(), 1u);
    return *all.front();
  }
  // A short patience, so that a path that is silent counts as lost soon.
  static Settings hasty(Settings settings) {
    settings.emplace_back("IB_TIMEOUT", "10");
    settings.emplace_back("IB_RETRY_CNT", "1");
    return settings;
  }
};

TEST_F(RdmaFailover, AKilledQueuePairIsReplacedAndNothingIsLost) {
  for (const char* qps : {"1", "4"}) {
    for (const char* split : {"0", "1"}) {
      RdmaWorld world(Settings{{"IB_QPS_PER_CONNECTION", qps}, {"IB_SPLIT_DATA_ON_QPS", split}});
      Link link = open(world);
      Stream stream;
      stream.after = [&](int n) {
        if (n % 50 == 20) double_.kill(busiest());
      };
      ASSERT_TRUE(stream.run(link)) << qps << " queue pairs, split " << split;
      EXPECT_EQ(of(world, 0).segments, 200u);
      EXPECT_GE(of(world, 0).fenced_qps, 1u);
      ASSERT_TRUE(until([&] {
        Segment none;
        EXPECT_TRUE(link.recv->peek(&none).is_ok());
        completed(*link.send);
        return of(world, 0).rebuilt_qps == of(world, 0).fenced_qps;
      }));
    }
  }
}

// Both ends of every queue pair, so that nothing but destroying them fences them.
TEST_F(RdmaFailover, AQueuePairWhoseReceivesDoNotComeBackIsReplacedAllTheSame) {
  RdmaWorld world(Settings{{"IB_QPS_PER_CONNECTION", "2"}});
  Link link = open(world);
  Stream stream;
  stream.after = [&](int n) {
    if (n % 80 != 40) return;
    const uint32_t victim = busiest();
    for (const rdma_double_qp_t& qp : double_.queue_pairs()) double_.keep_receives(qp.number);
    double_.kill(victim);
  };
  ASSERT_TRUE(stream.run(link));
  EXPECT_EQ(of(world, 0).segments, 200u);
  EXPECT_GE(of(world, 0).fenced_qps, 1u);
}

// Queue pairs fail, and are given up, before the ends know each other.
TEST_F(RdmaFailover, AChannelOpensAlthoughItsQueuePairsFailMeanwhile) {
  for (const bool sender_alone : {false, true}) {
    RdmaWorld world(Settings{{"IB_QPS_PER_CONNECTION", "2"}});
    Link link;
    const auto disturb = [&] {
      double_.port("double0", false);
      uint64_t count = 0;
      EXPECT_TRUE(link.send->progress(&count).is_ok());
      double_.port("double0", true);
    };
    auto send = world.transport(0).connect(1, 0);
    ASSERT_TRUE(send.is_ok()) << send.status().to_string();
    link.send = *std::move(send);
    if (sender_alone) disturb();
    auto recv = world.transport(1).accept(0, 0);
    ASSERT_TRUE(recv.is_ok()) << recv.status().to_string();
    link.recv = *std::move(recv);
    if (!sender_alone) {
      Segment none;
      EXPECT_TRUE(link.recv->peek(&none).is_ok());  // its end is there, and has not read the offer
      disturb();
    }
    Stream stream;
    ASSERT_TRUE(stream.run(link)) << sender_alone;
    EXPECT_GE(of(world, 0).rebuilt_qps, 1u);
  }
}

TEST_F(RdmaFailover, EveryQueuePairMayBeKilledAtAnyTime) {
  RdmaWorld world(Settings{{"IB_QPS_PER_CONNECTION", "3"}, {"RDMA_WINDOW", "4x16K"}});
  Link link = open(world);
  Stream stream;
  stream.segments = 600;
  std::mt19937 random(5);
  stream.after = [&](int n) {
    if (n % 7 != 3) return;
    const auto all = double_.queue_pairs();
    if (!all.empty()) double_.kill(all[random() % all.size()].number);
  };
  ASSERT_TRUE(stream.run(link));
  EXPECT_GE(of(world, 0).fenced_qps, 20u);
  EXPECT_GE(of(world, 0).sent_again + of(world, 1).duplicates + of(world, 0).duplicates, 1u);
}

TEST_F(RdmaFailover, AnErrorCompletionIsAFailedPathToo) {
  RdmaWorld world(Settings{});
  Link link = open(world);
  Stream stream;
  stream.after = [&](int n) {
    if (n % 60 == 30) double_.fail_next(busiest(), IBV_WC_RETRY_EXC_ERR);
  };
  ASSERT_TRUE(stream.run(link));
  EXPECT_GE(of(world, 0).fenced_qps, 1u);
}

TEST_F(RdmaFailover, ARefusedAccessEndsTheChannelWithACauseAndThePeersName) {
  RdmaWorld world(Settings{});
  Link link = open(world);
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(1), pattern(20000, 1)));
  double_.fail_next(busiest(), IBV_WC_REM_ACCESS_ERR);
  Status status;
  ASSERT_TRUE(until([&] {
    bool accepted = false;
    const Bytes data = pattern(100, 1);
    status = link.send->post(numbered(2), data.data(), data.size(), &accepted);
    uint64_t count = 0;
    if (status) status = link.send->progress(&count);
    return !status.is_ok();
  }));
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.rank(), 0);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_NE(status.message().find("the RDMA path to rank 1 is lost"), std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("outside what was granted"), std::string::npos);
}

TEST_F(RdmaFailover, LatePacketsOfAFencedQueuePairDoNotTouchASlotThatWasGrantedAnew) {
  RdmaWorld world(hasty({{"RDMA_WINDOW", "1x16K"}}));
  Link link = open(world);
  // One slot, so that every large segment lands in the same place.
  const size_t size = link.send->segment_bytes();
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kPeek, numbered(1), pattern(size, 1)));
  const uint32_t sender = busiest();
  uint32_t held = 0;
  for (const rdma_double_qp_t& qp : double_.queue_pairs())
    if (qp.number == sender) held = qp.destination;
  double_.hold(held, true);
  // These packets wait on the wire; their sender gives up, fences, and sends them again otherwise.
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kPeek, numbered(2), pattern(size, 2)));
  EXPECT_GE(of(world, 0).sent_again, 1u);
  const Bytes third = pattern(size, 3);
  bool sent = false;
  Segment shown;
  ASSERT_TRUE(until([&] {
    if (!sent) sent = try_send(*link.send, SendWay::kSlot, numbered(3), third.data(), size);
    completed(*link.send);
    EXPECT_TRUE(link.recv->peek(&shown).is_ok());
    return shown.ready;
  }));
  double_.release(held);
  for (int i = 0; i < 2000; ++i) {
    completed(*link.send);
    ASSERT_TRUE(link.recv->peek(&shown).is_ok());
    sched_yield();
  }
  EXPECT_EQ(shown.bytes, size);
  EXPECT_TRUE(std::equal(third.begin(), third.end(), shown.data)) << "a late packet wrote here";
  EXPECT_TRUE(link.recv->release().is_ok());
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kInto, numbered(4), pattern(size, 4)));
}

TEST_F(RdmaFailover, APortThatGoesDownLeavesItsWorkToAnotherAndComesBack) {
  const WithVariable two("RDMA_DOUBLE_DEVICES", "2");
  RdmaWorld world(hasty({}));
  Link link = open(world);
  // The second: of lane 0 between ranks 0 and 1 it has the grants.
  Stream stream;
  stream.segments = 300;
  stream.after = [&](int n) {
    if (n == 100) double_.port("double1", false);
    if (n == 200) double_.port("double1", true);
  };
  ASSERT_TRUE(stream.run(link));
  const rdma::ChannelStatistics& sender = of(world, 0);
  EXPECT_EQ(sender.qps_used, 3u) << "both rails carried something";
  EXPECT_GE(sender.fenced_qps, 2u) << "a data queue pair and the one for grants";
  ASSERT_TRUE(until([&] {
    Segment none;
    EXPECT_TRUE(link.recv->peek(&none).is_ok());
    completed(*link.send);
    return sender.rebuilt_qps == sender.fenced_qps;
  })) << "the port is used again";
  Stream more;
  more.seed = 2;
  ASSERT_TRUE(more.run(link));
}

// A switch on the way that drops everything, while both ports stay up.
TEST_F(RdmaFailover, ADeadPathWhosePortIsUpIsTriedLessAndLessOften) {
  const WithVariable two("RDMA_DOUBLE_DEVICES", "2");
  RdmaWorld world(hasty({}));
  Link link = open(world);
  const auto cut = [&] {
    for (const rdma_double_qp_t& qp : double_.queue_pairs())
      if (qp.device == 0) double_.hold(qp.number, true);
  };
  Stream before;
  ASSERT_TRUE(before.run(link));
  const auto begin = Clock::now();
  Stream stream;
  stream.segments = 400;
  stream.seed = 2;
  stream.before_turn = cut;
  ASSERT_TRUE(stream.run(link));
  // The n-th failure in a row keeps it down for 2^(n-2) times 200 ms, and the first not at all.
  const double down = std::chrono::duration<double>(Clock::now() - begin).count() / 0.2;
  EXPECT_GE(of(world, 0).fenced_qps, 1u);
  EXPECT_LE(static_cast<double>(of(world, 0).fenced_qps), 2 + std::log2(1 + down));
}

}  // namespace
}  // namespace libcomm::test
