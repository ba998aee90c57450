// QuickCalls: the small operations that a communicator has done before.
//
// A repeated small exchange costs a few hundred nanoseconds between two cores, and its checks,
// look-ups and state machine would cost as much again. What they found is kept here, by the call's
// arguments, so that a repeat compares them, looks at the two pointers, and exchanges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "src/execute/oneshot.h"

namespace libcomm {

// The arguments that decide what a call is; the buffers do not.
struct QuickKey {
  size_t count = 0;
  int root = 0;
  uint32_t what = 0;  // 0: nothing

  // Of any arguments, wrong ones too. `op`: 0 to 3 as in ReduceOp, 4 for an average, 0 where there
  // is none; others are never remembered.
  static QuickKey of(Collective collective, int type, int op, int root, size_t count) {
    if ((static_cast<unsigned>(type) | static_cast<unsigned>(op)) > 0xff) return {};
    return {count, root,
            uint32_t{1} << 24 | static_cast<uint32_t>(collective) << 16 |
                static_cast<uint32_t>(type) << 8 | static_cast<uint32_t>(op)};
  }
  bool operator==(const QuickKey&) const = default;
};

struct QuickCall {
  QuickKey key;
  OneshotCall call;
  size_t in_bytes = 0, out_bytes = 0;  // that the call reads and writes
  ptrdiff_t in_place = 0;              // recvbuff - sendbuff of an in-place call

  // The buffers are there and are the in-place pair or disjoint; what is not so needs words.
  bool accepts(const void* in, const void* out, bool check_overlap) const;
};

class QuickCalls {
 public:
  const QuickCall* find(const QuickKey& key) const {
    if (!calls_) return nullptr;
    const QuickCall& call = (*calls_)[slot_of(key)];
    return key.what != 0 && call.key == key ? &call : nullptr;
  }
  // After the operation has gone well as `call`.
  void remember(const Operation& operation, const OneshotCall& call, int rank, int nranks);

 private:
  static constexpr size_t kCalls = 64;
  static size_t slot_of(const QuickKey& key) {
    const uint64_t h = (key.count ^ static_cast<uint64_t>(key.what) << 32 ^
                        static_cast<uint64_t>(static_cast<uint32_t>(key.root)) << 20) *
                       0x9e3779b97f4a7c15u;
    return h >> 58;
  }
  static_assert(kCalls == 64);

  std::unique_ptr<std::array<QuickCall, kCalls>> calls_;
};

}  // namespace libcomm
