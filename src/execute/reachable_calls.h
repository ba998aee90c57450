// ReachableCalls: the calls whose buffers all ranks could reach where they are when they were last
// made.
//
// A middle-sized exchange is two to three times as fast by windows as at once when every rank
// reads, and writes, the others' buffers where they are, and slower when it must stage its own. A
// rank knows that of its own buffers only, but every rank must go the same way. So each exchange
// tells all ranks, and the next call like it goes by what they were told.
//
// What is kept depends on nothing but what all ranks have been told in the same order, so it is the
// same on all of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "src/execute/operation.h"

namespace libcomm {

// Is every rank told about all others' buffers, as far as they matter, and are so many bytes,
// published by one rank, worth it? A root that goes on without waiting gives up more.
inline bool tells_reach(Collective collective, size_t published) {
  constexpr size_t kLeast = size_t{16} << 10;
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kAllToAll:
      return published >= kLeast;
    case Collective::kBroadcast:
    case Collective::kScatter:
      return published >= 2 * kLeast;
    default:
      return false;
  }
}

class ReachableCalls {
 public:
  // `kind`: of OneshotCall.
  bool contains(uint64_t kind) const { return kinds_[place_of(kind)] == kind; }
  void note(uint64_t kind, bool reachable) {
    uint64_t& kept = kinds_[place_of(kind)];
    if (reachable)
      kept = kind;
    else if (kept == kind)
      kept = kNone;
  }

 private:
  static constexpr size_t kPlaces = 64;
  static constexpr uint64_t kNone = ~uint64_t{0};
  static size_t place_of(uint64_t kind) { return (kind ^ kind >> 7 ^ kind >> 17) % kPlaces; }

  std::array<uint64_t, kPlaces> kinds_ = [] {
    std::array<uint64_t, kPlaces> none;
    none.fill(kNone);
    return none;
  }();
};

}  // namespace libcomm
