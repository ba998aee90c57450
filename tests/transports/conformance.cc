// The conformance suite: what transports/transport.h promises, for every transport alike.
#include <poll.h>

#include <thread>

#include "tests/transports/pump.h"
#include "tests/transports/world.h"

namespace libcomm::test {
namespace {

constexpr SendWay kSlot = SendWay::kSlot;
constexpr RecvWay kRecvWays[] = {RecvWay::kPeek, RecvWay::kInto};

Link open(World& world, int from = 0, int lane = 0) {
  return open_link(world.transport(from), world.transport(1 - from), from, 1 - from, lane);
}

// Sizes that meet the edges of headers, read-ahead buffers, pages and segments.
std::vector<size_t> interesting_sizes(size_t segment_bytes) {
  std::vector<size_t> sizes;
  for (const size_t size :
       {0, 1, 7, 48, 64, 1000, 4095, 4096, 4097, 8143, 8144, 8145, 8192, 8193, 65536}) {
    if (size < segment_bytes) sizes.push_back(size);
  }
  sizes.push_back(segment_bytes - 1);
  sizes.push_back(segment_bytes);
  return sizes;
}

TEST_P(Conformance, CarriesASignalAsAnEmptySegment) {
  Link link = open(*world_);
  ASSERT_TRUE(until([&] { return try_send(*link.send, kSlot, numbered(1), nullptr, 0); }));
  Segment segment;
  ASSERT_TRUE(until([&] {
    completed(*link.send);
    EXPECT_TRUE(link.recv->peek(&segment).is_ok());
    return segment.ready;
  }));
  EXPECT_EQ(segment.bytes, 0u);
  EXPECT_EQ(segment.signature, numbered(1));
  EXPECT_TRUE(link.recv->release().is_ok());
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(link.recv->peek(&segment).is_ok());
    EXPECT_FALSE(segment.ready);
  }
}

TEST_P(Conformance, CarriesSegmentsOfEverySizeInEveryWay) {
  Link link = open(*world_);
  uint64_t op = 0;
  for (const SendWay send_way : send_ways(link)) {
    for (const RecvWay recv_way : kRecvWays) {
      for (const size_t size : interesting_sizes(link.send->segment_bytes())) {
        ++op;
        ASSERT_TRUE(carry(link, send_way, recv_way, numbered(op), pattern(size, op)))
            << size << " bytes";
      }
    }
  }
  // All of them have left by now.
  EXPECT_TRUE(until([&] { return completed(*link.send) == op; }));
}

TEST_P(Conformance, SaysNotReadyWithoutCreditAndReadyAgainOnceItIsBack) {
  Link link = open(*world_);
  const size_t bytes = link.send->segment_bytes();
  for (const SendWay way : send_ways(link)) {
    // A transport that takes this many without a reader has no back-pressure.
    constexpr uint64_t kTooMany = 1 << 16;
    std::vector<Bytes> sources;  // of posted segments, until the end
    uint64_t sent = 0;
    int refusals = 0;
    while (refusals < 100 && sent < kTooMany) {
      Bytes data = pattern(bytes, sent);
      if (try_send(*link.send, way, numbered(sent + 1), data.data(), data.size())) {
        sources.push_back(std::move(data));
        ++sent;
        refusals = 0;
      } else {
        // With helper threads or a slow kernel credit may still come for a moment.
        completed(*link.send);
        ++refusals;
        std::this_thread::yield();
      }
    }
    ASSERT_LT(sent, kTooMany);
    ASSERT_GE(sent, 1u);
    for (uint64_t i = 0; i < sent; ++i) {
      ASSERT_TRUE(until([&] {
        completed(*link.send);
        return try_receive(*link.recv, RecvWay::kPeek, numbered(i + 1), sources[i]);
      })) << "segment "
          << i << " of " << sent;
    }
    ASSERT_TRUE(carry(link, way, RecvWay::kInto, numbered(9), pattern(bytes, 9)));
  }
}

TEST_P(Conformance, KeepsTheOrderOfAChannel) {
  Link link = open(*world_);
  const int count = 300;
  int sent = 0, received = 0;
  std::mt19937 random(7);
  std::vector<Bytes> data;
  for (int i = 0; i < count; ++i) data.push_back(pattern(random() % 600, static_cast<uint64_t>(i)));
  ASSERT_TRUE(until([&] {
    const auto s = static_cast<size_t>(sent), r = static_cast<size_t>(received);
    if (sent < count && random() % 2 == 0) {
      const SendWay way = can_post(link) && s % 3 == 0 ? SendWay::kPost : kSlot;
      sent += try_send(*link.send, way, numbered(s), data[s].data(), data[s].size());
    }
    completed(*link.send);
    if (random() % 2 == 0) {
      const RecvWay way = kRecvWays[r % 5 == 0];
      received += try_receive(*link.recv, way, numbered(r), data[r]);
    }
    return received == count || HasFailure();
  }));
}

TEST_P(Conformance, ShowsTheSameSegmentUntilItIsReleased) {
  Link link = open(*world_);
  const Bytes first = pattern(100, 1), second = pattern(200, 2);
  ASSERT_TRUE(until([&] { return try_send(*link.send, kSlot, numbered(1), first.data(), 100); }));
  Segment segment;
  ASSERT_TRUE(until([&] {
    completed(*link.send);
    EXPECT_TRUE(link.recv->peek(&segment).is_ok());
    return segment.ready;
  }));
  // The second may have to wait for the first one's credit.
  bool sent = try_send(*link.send, kSlot, numbered(2), second.data(), 200);
  const std::byte* place = segment.data;
  for (int i = 0; i < 20; ++i) {
    completed(*link.send);
    ASSERT_TRUE(link.recv->peek(&segment).is_ok());
    ASSERT_TRUE(segment.ready);
    EXPECT_EQ(segment.data, place);
    EXPECT_EQ(segment.signature, numbered(1));
    EXPECT_TRUE(std::equal(first.begin(), first.end(), segment.data));
  }
  // A peek does not hinder receive_into from taking the same segment.
  ASSERT_TRUE(until([&] { return try_receive(*link.recv, RecvWay::kInto, numbered(1), first); }));
  ASSERT_TRUE(until([&] {
    if (!sent) sent = try_send(*link.send, kSlot, numbered(2), second.data(), 200);
    completed(*link.send);
    return try_receive(*link.recv, RecvWay::kPeek, numbered(2), second);
  }));
}

TEST_P(Conformance, GivesTheSameSlotUntilItIsCommitted) {
  Link link = open(*world_);
  std::byte* slot = nullptr;
  ASSERT_TRUE(until([&] {
    EXPECT_TRUE(link.send->reserve(&slot).is_ok());
    return slot != nullptr;
  }));
  std::byte* again = nullptr;
  ASSERT_TRUE(link.send->reserve(&again).is_ok());
  EXPECT_EQ(again, slot);
}

TEST_P(Conformance, KeepsLanesIndependent) {
  Link full = open(*world_, 0, 0);
  Link other = open(*world_, 0, 1);
  const Bytes data = pattern(full.send->segment_bytes(), 3);
  int refusals = 0;
  uint64_t sent = 0;
  while (refusals < 20 && sent < 4096) {
    try_send(*full.send, kSlot, numbered(1), data.data(), data.size()) ? ++sent
                                                                       : uint64_t(++refusals);
    completed(*full.send);
  }
  ASSERT_TRUE(carry(other, kSlot, RecvWay::kPeek, numbered(2), data));
  ASSERT_TRUE(carry(other, kSlot, RecvWay::kInto, numbered(3), pattern(9, 3)));
  for (uint64_t i = 0; i < sent; ++i) {
    ASSERT_TRUE(until([&] {
      completed(*full.send);
      return try_receive(*full.recv, RecvWay::kPeek, numbered(1), data);
    }));
  }
}

TEST_P(Conformance, CarriesBothDirectionsAtOnce) {
  Link there = open(*world_, 0), back = open(*world_, 1);
  for (uint64_t i = 1; i <= 20; ++i) {
    const Bytes ping = pattern(i * 50, i), pong = pattern(i * 60, i + 100);
    bool sent[2] = {}, received[2] = {};
    ASSERT_TRUE(until([&] {
      if (!sent[0]) sent[0] = try_send(*there.send, kSlot, numbered(i), ping.data(), ping.size());
      if (!sent[1]) sent[1] = try_send(*back.send, kSlot, numbered(i), pong.data(), pong.size());
      completed(*there.send);
      completed(*back.send);
      if (!received[0]) received[0] = try_receive(*there.recv, RecvWay::kInto, numbered(i), ping);
      if (!received[1]) received[1] = try_receive(*back.recv, RecvWay::kPeek, numbered(i), pong);
      return received[0] && received[1];
    }));
  }
}

TEST_P(Conformance, MayOverwriteASourceOnceItsSegmentIsCompleted) {
  Link link = open(*world_);
  if (!can_post(link)) GTEST_SKIP() << "this channel has no direct send";
  const size_t bytes = link.send->segment_bytes();
  const uint64_t count = 40;
  std::vector<Bytes> sources, expected;
  uint64_t overwritten = 0, received = 0, turn = 0;
  ASSERT_TRUE(until([&] {
    if (const uint64_t n = sources.size(); n < count) {
      Bytes data = pattern(bytes, n);
      if (try_send(*link.send, SendWay::kPost, numbered(n), data.data(), bytes)) {
        expected.push_back(data);
        sources.push_back(std::move(data));  // moving a vector leaves its memory where it is
      }
    }
    for (const uint64_t done = completed(*link.send); overwritten < done; ++overwritten) {
      std::fill(sources[overwritten].begin(), sources[overwritten].end(), std::byte{0xdd});
    }
    // Half of the turns, so that segments pile up.
    if (++turn % 2 == 0 && received < expected.size()) {
      received += try_receive(*link.recv, RecvWay::kInto, numbered(received), expected[received]);
    }
    return received == count || HasFailure();
  }));
  EXPECT_TRUE(until([&] { return completed(*link.send) == count; }));
}

TEST_P(Conformance, RefusesASegmentOfAnotherCallAndWritesNothing) {
  Link link = open(*world_);
  const Bytes data = pattern(100, 5);
  Signature theirs = numbered(7);
  theirs.count = 200;
  ASSERT_TRUE(until([&] { return try_send(*link.send, kSlot, theirs, data.data(), 100); }));

  Bytes dst(100, std::byte{0x11});
  const Bytes untouched = dst;
  for (int i = 0; i < 2; ++i) {
    Status status;
    bool done = false;
    ASSERT_TRUE(until([&] {
      completed(*link.send);
      status = link.recv->receive_into(numbered(7), dst.data(), 100, &done);
      return !status.is_ok() || done;
    }));
    EXPECT_FALSE(done);
    EXPECT_EQ(status.code(), Code::kInvalidUsage);
    EXPECT_EQ(status.message(),
              "rank 1 called allreduce(count 100, float32, sum) as operation 7, but rank 0 called "
              "allreduce(count 200, float32, sum); all ranks must make the same calls in the same "
              "order");
    EXPECT_EQ(status.rank(), 1);
    EXPECT_EQ(status.peer(), 0);
    EXPECT_EQ(status.op(), 7u);
    EXPECT_EQ(dst, untouched);
  }
  // Nothing was consumed.
  EXPECT_TRUE(until([&] { return try_receive(*link.recv, RecvWay::kInto, theirs, data); }));
}

TEST_P(Conformance, RefusesASegmentOfAnotherLengthAndWritesNothing) {
  Link link = open(*world_);
  const Bytes data = pattern(120, 5);
  ASSERT_TRUE(until([&] { return try_send(*link.send, kSlot, numbered(3), data.data(), 120); }));
  Bytes dst(120, std::byte{0x11});
  const Bytes untouched = dst;
  Status status;
  bool done = false;
  ASSERT_TRUE(until([&] {
    completed(*link.send);
    status = link.recv->receive_into(numbered(3), dst.data(), 100, &done);
    return !status.is_ok() || done;
  }));
  EXPECT_FALSE(done);
  EXPECT_EQ(status.code(), Code::kInvalidUsage);
  EXPECT_NE(status.message().find("expects 100 bytes, but rank 0 sent 120 bytes"),
            std::string::npos)
      << status.message();
  EXPECT_EQ(dst, untouched);
}

TEST_P(Conformance, DeliversWhatWasSentBeforeThePeerLeftThenNamesIt) {
  Link link = open(*world_);
  const Bytes data = pattern(200, 8);
  ASSERT_TRUE(carry(link, kSlot, RecvWay::kPeek, numbered(1), data));
  ASSERT_TRUE(until([&] { return try_send(*link.send, kSlot, numbered(2), data.data(), 200); }));
  ASSERT_TRUE(until([&] { return completed(*link.send) == 2; }));
  link.send.reset();
  if (!world_->leave(0)) GTEST_SKIP() << "this transport does not notice that a peer leaves";

  ASSERT_TRUE(until([&] { return try_receive(*link.recv, RecvWay::kInto, numbered(2), data); }));
  Status status;
  Segment segment;
  ASSERT_TRUE(until([&] {
    status = link.recv->peek(&segment);
    return !status.is_ok();
  }));
  EXPECT_FALSE(segment.ready);
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 0);
  EXPECT_NE(status.message().find("rank 0"), std::string::npos) << status.message();
  // It stays so.
  EXPECT_EQ(link.recv->peek(&segment).code(), Code::kRemote);
}

TEST_P(Conformance, TellsASenderThatItsPeerLeft) {
  Link link = open(*world_);
  const Bytes data = pattern(link.send->segment_bytes(), 8);
  ASSERT_TRUE(carry(link, kSlot, RecvWay::kPeek, numbered(1), data));
  link.recv.reset();
  if (!world_->leave(1)) GTEST_SKIP() << "this transport does not notice that a peer leaves";

  Status status;
  ASSERT_TRUE(until([&] {
    std::byte* slot = nullptr;
    status = link.send->reserve(&slot);
    if (status && slot != nullptr) status = link.send->commit(numbered(2), data.size());
    uint64_t count;
    if (status) status = link.send->progress(&count);
    return !status.is_ok();
  }));
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_NE(status.message().find("rank 1"), std::string::npos) << status.message();
}

TEST_P(Conformance, RefusesMisuse) {
  Link link = open(*world_);
  EXPECT_EQ(link.send->commit(numbered(1), 0).code(), Code::kInternal) << "nothing is reserved";
  EXPECT_EQ(link.recv->release().code(), Code::kInternal) << "nothing was shown";
  std::byte* slot = nullptr;
  ASSERT_TRUE(until([&] {
    EXPECT_TRUE(link.send->reserve(&slot).is_ok());
    return slot != nullptr;
  }));
  EXPECT_EQ(link.send->commit(numbered(1), link.send->segment_bytes() + 1).code(), Code::kInternal);
  if (!can_post(link)) {
    bool accepted = true;
    EXPECT_EQ(link.send->post(numbered(1), nullptr, 0, &accepted).code(), Code::kInternal);
    EXPECT_FALSE(accepted);
  }
}

TEST_P(Conformance, AgreesOnTheSegmentSize) {
  Link link = open(*world_);
  EXPECT_EQ(transport(0).segment_bytes(), transport(1).segment_bytes());
  EXPECT_EQ(link.send->segment_bytes(), transport(0).segment_bytes());
  EXPECT_EQ(link.recv->segment_bytes(), transport(0).segment_bytes());
  EXPECT_EQ(link.send->segment_bytes() % 16, 0u) << "no element may be cut";
  EXPECT_NE(link.send->capabilities() & kOrdered, 0u);
  EXPECT_NE(link.recv->capabilities() & kOrdered, 0u);
}

TEST_P(Conformance, CountsItsChannels) {
  const int before = transport(0).stats().channels;
  {
    Link link = open(*world_);
    ASSERT_TRUE(carry(link, kSlot, RecvWay::kPeek, numbered(1), pattern(64, 1)));
    EXPECT_EQ(transport(0).stats().channels, before + 1);
    EXPECT_GE(transport(1).stats().channels, 1);
    EXPECT_GT(transport(0).stats().host_bytes, 0u) << "a slot was reserved";
  }
  EXPECT_EQ(transport(0).stats().channels, before);
  EXPECT_EQ(transport(1).stats().channels, before);
}

// Each rank in a thread of its own, sleeping on the wait handle whenever nothing moves. A lost
// wake-up ends in poll's time-out, which fails the test.
TEST_P(Conformance, WakesWhoSleepsOnAWaitHandle) {
  Link there = open(*world_, 0), back = open(*world_, 1);
  const auto rest = [](const WaitHandle& handle) {
    if (handle.fd < 0) {
      std::this_thread::yield();
      return;
    }
    pollfd awaited{handle.fd, static_cast<short>(handle.for_write ? POLLOUT : POLLIN), 0};
    EXPECT_GT(::poll(&awaited, 1, 60'000), 0) << "slept through what it waited for";
  };
  const auto side = [&](Link& out, Link& in, bool begins) {
    const Bytes data = pattern(out.send->segment_bytes(), 4);
    for (int i = 0; i < 60; ++i) {
      for (const bool sends : {begins, !begins}) {
        bool moved = false;
        while (!moved && !HasFailure()) {
          moved = sends ? try_send(*out.send, kSlot, numbered(1), data.data(), data.size())
                        : try_receive(*in.recv, kRecvWays[i % 2], numbered(1), data);
          if (moved) break;
          rest(sends ? out.send->wait_handle() : in.recv->wait_handle());
        }
        while (sends && completed(*out.send) < static_cast<uint64_t>(i) + 1 && !HasFailure()) {
          if ((out.send->capabilities() & kMapped) != 0) break;
          rest(out.send->wait_handle());
        }
      }
    }
  };
  std::thread other([&] { side(back, there, false); });
  side(there, back, true);
  other.join();
}

// Two ranks in threads, several lanes in both directions, random sizes and ways, whole contents
// checked.
TEST_P(Conformance, CarriesRandomTraffic) {
  constexpr int kLanes = 3;
  std::vector<Link> links;  // [direction][lane]
  for (int from = 0; from < 2; ++from) {
    for (int lane = 0; lane < kLanes; ++lane) links.push_back(open(*world_, from, lane));
  }
  const auto link = [&](int from, int lane) -> Link& {
    return links[static_cast<size_t>(from * kLanes + lane)];
  };
  const size_t largest = transport(0).segment_bytes();
  const int segments = largest > (64 << 10) ? 40 : 150;
  const auto segment = [&](int from, int lane, int n) {
    const auto seed = static_cast<uint64_t>((from * kLanes + lane) * 1000 + n);
    std::mt19937_64 random(seed);
    // Mostly small, some whole segments.
    const size_t bytes = random() % 4 == 0   ? largest
                         : random() % 3 == 0 ? random() % (largest + 1)
                                             : random() % 200;
    return pattern(bytes, seed);
  };
  const auto rank_runs = [&](int rank) {
    std::mt19937 random(static_cast<unsigned>(rank));
    struct Sending {
      int next = 0;
      std::vector<Bytes> sources;  // kept: posted segments are read from them
    };
    std::vector<Sending> sending(kLanes);
    std::vector<int> received(kLanes);
    std::vector<Bytes> awaited(kLanes);
    for (int lane = 0; lane < kLanes; ++lane) awaited[lane] = segment(1 - rank, lane, 0);
    EXPECT_TRUE(until([&] {
      bool finished = true;
      for (int lane = 0; lane < kLanes; ++lane) {
        Sending& out = sending[static_cast<size_t>(lane)];
        Link& to = link(rank, lane);
        if (out.next < segments) {
          if (static_cast<int>(out.sources.size()) == out.next)
            out.sources.push_back(segment(rank, lane, out.next));
          const Bytes& data = out.sources.back();
          const SendWay way = can_post(to) && out.next % 2 == 0 ? SendWay::kPost : kSlot;
          out.next += try_send(*to.send, way, numbered(static_cast<uint64_t>(out.next)),
                               data.data(), data.size());
        }
        finished &= out.next == segments && completed(*to.send) == static_cast<uint64_t>(segments);
        int& got = received[static_cast<size_t>(lane)];
        if (got < segments && random() % 3 != 0) {
          const RecvWay way = kRecvWays[got / 2 % 2];
          if (try_receive(*link(1 - rank, lane).recv, way, numbered(static_cast<uint64_t>(got)),
                          awaited[static_cast<size_t>(lane)])) {
            if (++got < segments) awaited[static_cast<size_t>(lane)] = segment(1 - rank, lane, got);
          }
        }
        finished &= got == segments;
      }
      return finished || HasFailure();
    }));
  };
  std::thread other([&] { rank_runs(1); });
  rank_runs(0);
  other.join();
}

}  // namespace
}  // namespace libcomm::test
