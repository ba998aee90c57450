// BoardWindows: the windows of one operation on the board, and how far every rank has come with
// them.
//
// An operation that is too large for the board goes through it window by window. Windows are
// numbered over all operations of the communicator; a rank tells with three counters how many it
// has staged, reduced and gathered, and waits by comparing those of the others. What is done to a
// window is up to the exchange (Twoshot, WindowedCopy).
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "src/execute/board_layout.h"
#include "src/execute/operation.h"
#include "src/execute/reduce_pool.h"

namespace libcomm {

// From here on an output is not going to be in the cache when the caller reads it.
inline constexpr size_t kStreamBytes = size_t{16} << 20;

struct BoardArgs {
  Board* board = nullptr;
  BoardState* state = nullptr;
  const Operation* operation = nullptr;
  Signature signature;
  ReduceKernel kernel = nullptr;
  ReducePool* pool = nullptr;
  bool share_cores = false;  // more ranks on the host than cores: wake-ups must not be lost
};

// The commMemAlloc segment that holds a buffer, shared with the peers; none when there is none, or
// when they cannot map it.
std::optional<SegmentRef> share_buffer(Board& board, const void* buffer, size_t bytes);

// How far the other ranks must have come: least values of their counters.
struct BoardNeeds {
  uint64_t staged = 0, reduced = 0, gathered = 0;
};
BoardNeeds both(const BoardNeeds& a, const BoardNeeds& b);

class BoardWindows {
 public:
  using Counter = std::atomic<uint64_t> BoardControl::*;

  // `window`: wanted bytes per window; the same on all ranks.
  BoardWindows(const BoardArgs& args, size_t window);
  // The operation takes so many windows. To be called once.
  void begin(uint64_t count);

  int ranks() const { return static_cast<int>(parts_.size()); }
  int me() const { return me_; }
  size_t bytes() const { return staging_.window; }  // of a window
  uint64_t count() const { return count_; }
  uint64_t first() const { return first_; }  // number of the first, over all operations

  BoardControl& control(int index) const { return board_control(part(index)); }
  // Where rank `index` stages a window of this operation, and puts its reduced share of it.
  std::byte* input(int index, uint64_t window) const {
    return staging_.input(part(index), first_ + window);
  }
  std::byte* result(int index, uint64_t window) const {
    return staging_.result(part(index), first_ + window);
  }

  // What to wait for before a window of this operation: that all others have staged or reduced it,
  // or that this rank's buffers for it are free, whose readers may be kWindowBuffers windows back.
  BoardNeeds staged(uint64_t window) const { return {.staged = first_ + window + 1}; }
  BoardNeeds reduced(uint64_t window) const { return {.reduced = first_ + window + 1}; }
  BoardNeeds free_input(uint64_t window) const;
  BoardNeeds free_result(uint64_t window) const;

  // Have the others come so far? Looks only at those that had not when last looked at.
  bool reached(const BoardNeeds& needs);
  // Adds the ranks that have not, as they are now.
  void short_of(const BoardNeeds& needs, std::vector<int>* ranks) const;
  // Tells the others that this rank has done so many windows of the operation.
  void tell(std::initializer_list<Counter> counters, uint64_t done);

 private:
  std::byte* part(int index) const { return parts_[static_cast<size_t>(index)]; }

  Board* board_;
  BoardState* state_;
  bool share_cores_;
  std::span<std::byte* const> parts_;
  int me_;
  Staging staging_;
  bool relaid_;  // the windows before were laid out otherwise
  uint64_t first_;
  uint64_t count_ = 0;
  std::vector<BoardNeeds> seen_;  // of the others, by index
};

}  // namespace libcomm
