#include "transports/fake/pipe.h"

#include <cstring>

namespace libcomm {
namespace {

uint64_t seed_of(const FakeOptions& options, int from, int to, int lane, int which) {
  uint64_t seed = options.seed;
  for (const int part : {from, to, lane, which}) {
    seed = (seed ^ static_cast<uint64_t>(part)) * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
    seed ^= seed >> 29;
  }
  return seed;
}

}  // namespace

FakePipe::FakePipe(const FakeOptions& options, int from, int to, int lane)
    : options_(options),
      sender_random_(seed_of(options, from, to, lane, 0)),
      receiver_random_(seed_of(options, from, to, lane, 1)),
      delay_random_(seed_of(options, from, to, lane, 2)) {}

void FakePipe::enter(const Signature& signature, const std::byte* src, size_t bytes) {
  FakeParcel& parcel = parcels.emplace_back();
  parcel.signature = signature;
  parcel.data.resize(bytes);
  parcel.src = src;
  parcel.delay =
      static_cast<int>(delay_random_() % (static_cast<uint64_t>(options_.max_delay) + 1));
}

void FakePipe::pump() {
  for (FakeParcel& parcel : parcels) {
    if (parcel.whole()) continue;
    const size_t bytes =
        draw_portion(sender_random_, options_.short_io, parcel.data.size() - parcel.arrived);
    std::memcpy(parcel.data.data() + parcel.arrived, parcel.src + parcel.arrived, bytes);
    parcel.arrived += bytes;
    // As on a wire: the next segment's bytes come after all of this one's.
    if (!parcel.whole()) return;
  }
}

uint64_t FakePipe::completed() const {
  uint64_t whole = 0;
  while (whole < parcels.size() && parcels[whole].whole()) ++whole;
  return dropped_ + whole;
}

FakeParcel* FakePipe::poll() {
  if (parcels.empty()) return nullptr;
  FakeParcel& front = parcels.front();
  if (front.delay > 0) {
    --front.delay;
    return nullptr;
  }
  return &front;
}

void FakePipe::drop_front() {
  parcels.pop_front();
  ++dropped_;
}

size_t FakePipe::portion(size_t bytes) {
  return draw_portion(receiver_random_, options_.short_io, bytes);
}

size_t FakePipe::draw_portion(std::mt19937_64& random, bool short_io, size_t bytes) {
  if (!short_io || bytes == 0) return bytes;
  return 1 + static_cast<size_t>(random() % bytes);
}

}  // namespace libcomm
