// Driving non-blocking channels in tests: try until it is done, for a bounded time.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "src/base/clock.h"
#include "transports/transport.h"

namespace libcomm::test {

using Bytes = std::vector<std::byte>;

// Bytes that a seed determines.
inline Bytes pattern(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes data(bytes);
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(data.data() + i, &word, std::min<size_t>(8, bytes - i));
  }
  return data;
}

// The signature of an all-reduce that only its number tells from others.
inline Signature numbered(uint64_t op) {
  Signature signature;
  signature.op = op;
  signature.count = 100;
  signature.type = 7;  // float32
  return signature;
}

// Calls try_once until it returns true; false when that takes implausibly long. A test that hangs
// would say less.
template <typename Try>
bool until(Try try_once) {
  const Deadline deadline = Deadline::after(Seconds(60));
  for (unsigned turn = 0; !try_once(); ++turn) {
    if (turn % 64 == 63) {
      if (deadline.passed()) return false;
      sched_yield();
    }
  }
  return true;
}

enum class SendWay { kSlot, kPost };
enum class RecvWay { kPeek, kInto };

// One try; the test fails when the channel does.
inline bool try_send(SendChannel& channel, SendWay way, const Signature& signature,
                     const void* data, size_t bytes) {
  if (way == SendWay::kPost) {
    bool accepted = false;
    const Status status = channel.post(signature, data, bytes, &accepted);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return accepted || !status.is_ok();
  }
  std::byte* slot = nullptr;
  Status status = channel.reserve(&slot);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  if (slot == nullptr) return !status.is_ok();
  if (bytes > 0) std::memcpy(slot, data, bytes);
  status = channel.commit(signature, bytes);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  return true;
}

inline uint64_t completed(SendChannel& channel) {
  uint64_t count = 0;
  const Status status = channel.progress(&count);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  return count;
}

// One try to receive the segment `expected`; compares signature and bytes when it is there.
inline bool try_receive(RecvChannel& channel, RecvWay way, const Signature& signature,
                        const Bytes& expected) {
  if (way == RecvWay::kInto) {
    // The same arguments until it is done, also when other channels come in between.
    static thread_local std::map<const RecvChannel*, Bytes> unfinished;
    Bytes& dst = unfinished[&channel];
    dst.resize(expected.size());
    bool done = false;
    const Status status = channel.receive_into(signature, dst.data(), expected.size(), &done);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    if (!done) return !status.is_ok();
    EXPECT_TRUE(dst == expected) << "bytes differ";
    unfinished.erase(&channel);
    return true;
  }
  Segment segment;
  Status status = channel.peek(&segment);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  if (!segment.ready) return !status.is_ok();
  EXPECT_EQ(segment.signature, signature);
  EXPECT_EQ(segment.bytes, expected.size());
  if (segment.bytes == expected.size()) {
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), segment.data)) << "bytes differ";
  }
  status = channel.release();
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  return true;
}

// The two ends of one channel.
struct Link {
  std::unique_ptr<SendChannel> send;
  std::unique_ptr<RecvChannel> recv;
};

inline Link open_link(Transport& from, Transport& to, int from_rank, int to_rank, int lane = 0) {
  Link link;
  auto recv = to.accept(from_rank, lane);
  EXPECT_TRUE(recv.is_ok()) << recv.status().to_string();
  auto send = from.connect(to_rank, lane);
  EXPECT_TRUE(send.is_ok()) << send.status().to_string();
  if (recv) link.recv = std::move(*recv);
  if (send) link.send = std::move(*send);
  return link;
}

// Sends the segment and receives it, from this one thread.
inline bool carry(Link& link, SendWay send_way, RecvWay recv_way, const Signature& signature,
                  const Bytes& data) {
  bool sent = false;
  return until([&] {
    if (!sent) sent = try_send(*link.send, send_way, signature, data.data(), data.size());
    completed(*link.send);
    return try_receive(*link.recv, recv_way, signature, data);
  });
}

inline bool can_post(const Link& link) {
  return (link.send->capabilities() & (kDirectSend | kReferences)) != 0;
}
inline std::vector<SendWay> send_ways(const Link& link) {
  if (can_post(link)) return {SendWay::kSlot, SendWay::kPost};
  return {SendWay::kSlot};
}

}  // namespace libcomm::test
