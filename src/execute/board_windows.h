// BoardWindows: the windows of one operation on the board, and how far every rank has come with
// them.
//
// An operation that is too large for the board goes through it window by window. Windows are
// numbered over all operations of the communicator; a rank tells with three counters how many it
// has staged, reduced and gathered, and waits by comparing those of the others. What is done to a
// window is up to the exchange (WindowedReduction, WindowedCopy).
//
// What a rank does not have to stage: memory that the others reach where it is. That is a
// commMemAlloc segment, which they map; memory of a rank in the same process; and plain memory that
// may be read across processes (process_vm_readv). The owner then waits until it is done with.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "src/execute/board_layout.h"
#include "src/execute/operation.h"
#include "src/execute/reduce_pool.h"

namespace libcomm {

struct BoardArgs {
  Board* board = nullptr;
  BoardState* state = nullptr;
  const Operation* operation = nullptr;
  Signature signature;
  ReduceKernel kernel = nullptr;
  ReducePool* pool = nullptr;
  bool share_cores = false;  // more ranks on the host than cores: wake-ups must not be lost
};

// A buffer of another rank, as far as it can be reached where it is.
struct PeerBuffer {
  std::byte* memory = nullptr;  // in this process's address space, to be read and written
  uint64_t address = 0;         // else in its owner's, to be read; 0: not at all

  bool readable() const { return memory != nullptr || address != 0; }
};

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
  // No rank of this process uses this rank's memory any more once this has returned.
  ~BoardWindows();
  BoardWindows(const BoardWindows&) = delete;
  BoardWindows& operator=(const BoardWindows&) = delete;

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

  // Tells the others, before the first window is staged, how they may use a buffer of this rank;
  // with `by_address` also when only its owner's process has it mapped.
  Access offer(BufferNote BoardControl::*note, const void* buffer, size_t bytes, bool by_address);
  // What rank `index` has told so; to be asked once it has staged its first window.
  Result<PeerBuffer> reach(int index, const BufferNote& note, size_t bytes);
  // Copies from a buffer of rank `index` that is readable.
  Status fetch(int index, const PeerBuffer& from, size_t offset, void* to, size_t bytes,
               bool stream);
  // Can every other rank use a buffer to which it has this access where it is?
  bool all_reach(Access access) const {
    return access == Access::kSegment || (access == Access::kAddress && all_in_this_process());
  }
  bool in_this_process(int index) const { return board_->in_this_process(index); }
  bool all_in_this_process() const { return neighbours_ + 1 == ranks(); }
  // Some other ranks are in this process and may use its memory.
  bool reaches_neighbours() const { return neighbours_ > 0 && board_->memory_readable(); }

  // Around every use of other ranks' memory: while one of this process uses it, its owner does not
  // end the operation, not even when it failed. kRemote when an owner has ended it already.
  class Use {
   public:
    explicit Use(BoardWindows* windows) : windows_(windows) {}
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    Status begin();

   private:
    BoardWindows* windows_;
    bool begun_ = false;
  };

  // No rank has given the operation up, and with it memory that this one has just read.
  Status check_owners() const;

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
  // All has gone well: nobody uses this rank's memory any more.
  void end() { ended_ = true; }

 private:
  std::byte* part(int index) const { return parts_[static_cast<size_t>(index)]; }

  Board* board_;
  BoardState* state_;
  bool share_cores_;
  std::span<std::byte* const> parts_;
  int me_;
  Staging staging_;
  bool relaid_;         // the windows before were laid out otherwise
  int neighbours_ = 0;  // other ranks in this process
  bool ended_ = false;
  uint64_t first_;
  uint64_t count_ = 0;
  std::vector<BoardNeeds> seen_;  // of the others, by index
};

}  // namespace libcomm
