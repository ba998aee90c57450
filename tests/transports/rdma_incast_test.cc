// Admission by the receiver under load: many senders into a receiver that is slow, while they feed
// a healthy one, too; and the invariant over a long run of random traffic.
#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_stream.h"
#include "tests/transports/rdma_world.h"

namespace libcomm::test {
namespace {

constexpr int kSenders = 16;
constexpr int kHealthy = kSenders, kSlow = kSenders + 1;  // ranks
constexpr size_t kSlot = 16 << 10;
constexpr int kSlots = 4;
// Bytes per second: so few that this machine, with sanitizers and others' work on it, keeps up.
constexpr uint64_t kRate = 1 << 20;

class RdmaIncast : public OnRdmaDouble {
 protected:
  // All senders on one device, each receiver on its own.
  static std::vector<Settings> ranks() {
    std::vector<Settings> all;
    for (int rank = 0; rank < kSenders + 2; ++rank) {
      const char* device = rank == kHealthy ? "=double1" : rank == kSlow ? "=double2" : "=double0";
      all.push_back({{"IB_HCA", device}, {"RDMA_WINDOW", "4x16K"}});
    }
    return all;
  }

  struct Outcome {
    double rate = 0;  // of the healthy receiver, bytes per second of the double's clock
    rdma_double_device_t healthy{}, slow{};
  };

  // Every sender sends `segments` to the healthy receiver and, when asked to, all the while as much
  // to the slow one as that takes.
  Outcome run(bool incast, int segments, uint64_t slow_rate) {
    RdmaWorld world(ranks());
    std::vector<Link> to_healthy, to_slow;
    for (int sender = 0; sender < kSenders; ++sender) {
      to_healthy.push_back(
          open_link(world.transport(sender), world.transport(kHealthy), sender, kHealthy));
      if (incast)
        to_slow.push_back(
            open_link(world.transport(sender), world.transport(kSlow), sender, kSlow));
    }
    double_.receive_rate("double1", kRate);
    double_.receive_rate("double2", slow_rate);
    const rdma_double_device_t before = double_.device("double1");
    const Bytes data = pattern(kSlot, 1);
    std::vector<int> sent(kSenders), received(kSenders);
    const auto feed = [&](Link& link) {
      const bool went = try_send(*link.send, SendWay::kPost, numbered(1), data.data(), data.size());
      completed(*link.send);
      return went;
    };
    EXPECT_TRUE(until([&] {
      bool done = true;
      for (size_t i = 0; i < kSenders; ++i) {
        if (sent[i] < segments) sent[i] += feed(to_healthy[i]);
        completed(*to_healthy[i].send);
        if (received[i] < segments)
          received[i] += try_receive(*to_healthy[i].recv, RecvWay::kPeek, numbered(1), data);
        done = done && received[i] == segments;
        if (!incast) continue;
        feed(to_slow[i]);
        (void)try_receive(*to_slow[i].recv, RecvWay::kPeek, numbered(1), data);
      }
      return done || HasFailure();
    }));
    Outcome outcome;
    outcome.healthy = double_.device("double1");
    outcome.slow = double_.device("double2");
    outcome.rate = static_cast<double>(outcome.healthy.received_bytes - before.received_bytes) /
                   (1e-9 * static_cast<double>(outcome.healthy.span_ns - before.span_ns));
    for (int rank = 0; rank < kSenders; ++rank) {
      for (const auto& channel : world.rdma(rank).statistics()) {
        EXPECT_LE(channel->peak_in_flight_bytes, kSlots * kSlot);
      }
    }
    return outcome;
  }
};

// Most that may wait at the slow receiver: all windows, and each packet's headers.
constexpr uint64_t kMostBacklog = uint64_t{kSenders} * (kSlots * kSlot + 4096 * 16);

TEST_F(RdmaIncast, AReceiverThatTakesNothingHoldsUpNobodyElse) {
  const WithVariable three("RDMA_DOUBLE_DEVICES", "3");
  const Outcome mixed = run(true, 10, 1);
  EXPECT_LE(mixed.slow.max_backlog_bytes, kMostBacklog);
  EXPECT_GT(mixed.slow.max_backlog_bytes, uint64_t{kSenders} * kSlot) << "it was under load";
}

TEST_F(RdmaIncast, ASlowReceiverHasNoMoreWaitingThanItsWindows) {
  const WithVariable three("RDMA_DOUBLE_DEVICES", "3");
  const Outcome alone = run(false, 10, kRate / 4);
  const Outcome mixed = run(true, 10, kRate / 4);
  EXPECT_LE(mixed.slow.max_backlog_bytes, kMostBacklog);
  EXPECT_GT(mixed.slow.received_bytes, uint64_t{kSenders} * kSlot) << "it was under load";
  // By the double's clock, so what else this machine does shows only when it leaves the healthy
  // receiver without work. Flows that the slow one held up would fall to about a quarter.
  std::printf(
      "incast: the healthy flows keep %.2f of their speed; the slow receiver's backlog is at "
      "most %llu of %llu bytes\n",
      mixed.rate / alone.rate, static_cast<unsigned long long>(mixed.slow.max_backlog_bytes),
      static_cast<unsigned long long>(kMostBacklog));
}

// RDMA_TEST_SLICES=10000000 for the long run.
TEST_F(RdmaIncast, TheInvariantHoldsOverRandomTraffic) {
  const char* wanted = std::getenv("RDMA_TEST_SLICES");
  const uint64_t slices = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 100'000;
  RdmaWorld world(Settings{{"RDMA_WINDOW", "6x4160"}, {"IB_QPS_PER_CONNECTION", "2"}});
  std::vector<Link> links;
  for (int lane = 0; lane < 3; ++lane)
    links.push_back(open_link(world.transport(0), world.transport(1), 0, 1, lane));
  const size_t segment = links[0].send->segment_bytes();
  struct Lane {
    uint64_t sent = 0, received = 0;
    std::mt19937 sizes, expected;  // the same numbers twice
    size_t next = 0, due = 0;
  };
  std::vector<Lane> lanes(links.size());
  // Large ones, which need a grant, and small ones alike; both hold two numbers.
  const auto draw = [segment](std::mt19937& random) {
    const uint32_t number = random();
    return number % 2 == 0 ? 4040 + number / 2 % (segment - 4039) : 16 + number / 2 % 200;
  };
  for (size_t i = 0; i < lanes.size(); ++i) {
    lanes[i].sizes.seed(static_cast<unsigned>(i));
    lanes[i].expected.seed(static_cast<unsigned>(i));
    lanes[i].next = draw(lanes[i].sizes);
    lanes[i].due = draw(lanes[i].expected);
  }
  std::mt19937 random(1);
  const uint64_t each = slices / lanes.size();
  const auto step = [&](Link& link, Lane& lane) {
    std::byte* slot = nullptr;
    Status status = lane.sent < each ? link.send->reserve(&slot) : Status::ok();
    if (status && slot != nullptr) {
      std::memcpy(slot, &lane.sent, sizeof lane.sent);
      std::memcpy(slot + lane.next - sizeof lane.sent, &lane.sent, sizeof lane.sent);
      status = link.send->commit(numbered(lane.sent), lane.next);
      ++lane.sent;
      lane.next = draw(lane.sizes);
    }
    uint64_t count = 0;
    if (status) status = link.send->progress(&count);
    Segment got;
    if (status && random() % 4 != 0) status = link.recv->peek(&got);
    if (status && got.ready) {
      uint64_t first = 0, last = 0;
      std::memcpy(&first, got.data, sizeof first);
      std::memcpy(&last, got.data + got.bytes - sizeof last, sizeof last);
      if (got.bytes != lane.due || first != lane.received || last != lane.received)
        status = error(Code::kInternal, "segment {} came as {}..{}, {} bytes", lane.received, first,
                       last, got.bytes);
      if (status) status = link.recv->release();
      ++lane.received;
      lane.due = draw(lane.expected);
    }
    return status;
  };
  uint64_t done = 0;
  while (done < each * lanes.size() && !HasFailure()) {
    for (size_t i = 0; i < lanes.size(); ++i) {
      const uint64_t before = lanes[i].received;
      const Status status = step(links[i], lanes[i]);
      ASSERT_TRUE(status.is_ok()) << status.to_string();
      done += lanes[i].received - before;
    }
  }
  for (int rank = 0; rank < 2; ++rank) {
    for (const auto& channel : world.rdma(rank).statistics()) {
      EXPECT_LE(channel->peak_in_flight_bytes, 6 * segment);
      EXPECT_LE(channel->peak_open_grant_bytes, 6 * segment);
      EXPECT_LE(channel->written_bytes, channel->granted_bytes);
    }
  }
}

}  // namespace
}  // namespace libcomm::test
