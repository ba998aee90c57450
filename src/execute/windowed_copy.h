// Windowed copy: a large collective that only moves data, through the board, pipelined over
// windows.
//
// It is the one-shot exchange, window by window: an all-gather, broadcast, gather, scatter or
// all-to-all in which every rank
//   stages  copies a window of what it has for the others into its part of the board,
//   takes   what it needs of the same window from the others' parts into its output.
// A window is the same slice of every block that a rank offers: all of them where each peer takes
// another one (scatter, all-to-all), else its only one. Up to kWindowBuffers windows are in flight.
// What peers reach where it is, they take from there, and the owner waits until they have: a
// commMemAlloc segment, memory of the same process, and what is worth reading across processes
// (process_vm_readv).
#pragma once

#include <vector>

#include "src/execute/board_windows.h"
#include "src/execute/execution.h"

namespace libcomm {

// Does it know this collective?
bool windowed_copy_knows(Collective collective);

class WindowedCopy final : public Execution {
 public:
  // `window`: wanted bytes per window; the same on all ranks.
  WindowedCopy(const BoardArgs& args, size_t window);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  // When it is over: did all ranks take from each other's memory where it is, without a system
  // call?
  bool was_in_place() const { return in_place_; }

 private:
  struct Slice {
    size_t begin, bytes;  // of a block
  };

  bool is_staged() const;
  void announce();
  Status meet_peers();
  bool offers(int rank) const;
  bool takes_from(int rank) const;
  Slice slice(uint64_t window) const;
  void stage();
  void take_own(const Slice& slice);
  Status take();
  Status take_from(int index, const Slice& slice);
  // Bytes of this rank's and every other's input, where they have one.
  size_t offered_bytes() const {
    return block_bytes_ * static_cast<size_t>(block_per_peer_ ? n_ : 1);
  }
  bool can_stage() {
    return staged_ < windows_.count() && windows_.reached(windows_.free_input(staged_));
  }
  bool can_take() { return taken_ < staged_ && windows_.reached(windows_.staged(taken_)); }
  // Peers have taken what they needed from this rank's own memory.
  BoardNeeds to_end() const { return windows_.reduced(windows_.count() - 1); }
  bool can_end() {
    return taken_ == windows_.count() && (access_ == Access::kNone || windows_.reached(to_end()));
  }

  BoardArgs args_;
  BoardWindows windows_;
  int n_;
  int me_;
  size_t block_bytes_;
  bool block_per_peer_;  // a rank offers a block for each rank, not one for all
  bool collects_;        // the output holds a block of each rank
  bool reads_;           // ranks read what others have where it is in another process
  size_t slice_bytes_;   // of a block, that a window carries
  uint64_t staged_ = 0, taken_ = 0;
  const std::byte* in_;
  std::byte* out_;
  Access access_ = Access::kNone;  // of the others to this rank's input
  bool announced_ = false, met_ = false;
  bool in_place_ = true;  // as far as is known
  bool stream_;
  std::vector<PeerBuffer> peers_;  // inputs, by index
};

}  // namespace libcomm
