// FakePipe: the way of one fake channel's segments, with their seeded delays.
#pragma once

#include <deque>
#include <mutex>
#include <random>
#include <vector>

#include "transports/fake/transport.h"

namespace libcomm {

// A segment on its way.
struct FakeParcel {
  Signature signature;
  std::vector<std::byte> data;
  size_t arrived = 0;              // bytes of data that the sender has moved in
  size_t taken = 0;                // bytes that receive_into has moved out
  const std::byte* src = nullptr;  // a posted segment's memory, read by the sender's thread only
  int delay = 0;                   // polls until the receiver sees it

  bool whole() const { return arrived == data.size(); }
};

// Everything in it is under `mutex`; the methods expect it held.
class FakePipe {
 public:
  FakePipe(const FakeOptions& options, int from, int to, int lane);

  bool has_credit() const { return parcels.size() < static_cast<size_t>(options_.credits); }
  // Enters a segment whose bytes are still to be moved in from `src`.
  void enter(const Signature& signature, const std::byte* src, size_t bytes);
  // Moves posted bytes in, a random part of them with short_io.
  void pump();
  // How many of the first segments are in whole.
  uint64_t completed() const;
  uint64_t entered() const { return dropped_ + parcels.size(); }
  // The oldest segment, once its delay is over; counts as a poll. nullptr: nothing to see.
  FakeParcel* poll();
  void drop_front();
  // 1..bytes with short_io, else bytes. 0 gives 0.
  size_t portion(size_t bytes);

  std::mutex mutex;
  std::deque<FakeParcel> parcels;
  bool sender_gone = false;
  bool receiver_gone = false;

 private:
  const FakeOptions options_;
  uint64_t dropped_ = 0;
  // Separate sources, so that how often either side polls does not change what the other draws.
  std::mt19937_64 sender_random_;
  std::mt19937_64 receiver_random_;
  std::mt19937_64 delay_random_;

  static size_t draw_portion(std::mt19937_64& random, bool short_io, size_t bytes);
};

}  // namespace libcomm
