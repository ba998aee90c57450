// A stream of numbered segments over one link, in one thread, with everything checked: for tests
// that disturb it on the way.
#pragma once

#include <deque>
#include <functional>

#include "tests/transports/pump.h"

namespace libcomm::test {

struct Stream {
  int segments = 200;
  size_t largest = 0;  // bytes; 0: what the channel carries
  uint64_t seed = 1;
  // Called when the segment with this number has been received.
  std::function<void(int)> after;
  // Called before every turn of the two ends, the sending one first.
  std::function<void()> before_turn;

  Bytes segment(size_t most, int n) const {
    std::mt19937_64 random(seed * 1000003 + static_cast<uint64_t>(n));
    const size_t bytes = random() % 3 == 0 ? random() % 300 : random() % (most + 1);
    return pattern(bytes, random());
  }

  // False, with a failure of the test, when it does not end.
  bool run(Link& link) const {
    const size_t most = largest != 0 ? largest : link.send->segment_bytes();
    std::deque<Bytes> sent;  // kept until completed: they may be read from where they are
    int next = 0, received = 0;
    uint64_t forgotten = 0;
    const uint64_t before = completed(*link.send);
    Bytes outgoing = segment(most, 0);
    Bytes awaited = outgoing;
    const bool ended = until([&] {
      if (before_turn) before_turn();
      if (next < segments) {
        const SendWay way = next % 2 == 0 ? SendWay::kPost : SendWay::kSlot;
        if (try_send(*link.send, way, numbered(static_cast<uint64_t>(next)), outgoing.data(),
                     outgoing.size())) {
          sent.push_back(std::move(outgoing));
          if (++next < segments) outgoing = segment(most, next);
        }
      }
      for (const uint64_t done = completed(*link.send) - before; forgotten < done; ++forgotten)
        sent.pop_front();
      if (received < segments) {
        const RecvWay way = received / 3 % 2 == 0 ? RecvWay::kPeek : RecvWay::kInto;
        if (try_receive(*link.recv, way, numbered(static_cast<uint64_t>(received)), awaited)) {
          if (after) after(received);
          if (++received < segments) awaited = segment(most, received);
        }
      }
      return testing::Test::HasFailure() || (received == segments && sent.empty());
    });
    EXPECT_TRUE(ended) << received << " of " << segments << " segments came, " << sent.size()
                       << " are not complete";
    return ended && !testing::Test::HasFailure();
  }
};

}  // namespace libcomm::test
