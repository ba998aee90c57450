// Windowed reduction: a large all-reduce, reduce-scatter or reduce through the board, pipelined
// over windows.
//
// A window has one share per rank: a slice of every rank's block (reduce-scatter), or a part of a
// slice of the buffer. For each window a rank
//   stages   copies the other ranks' shares of its input into its part of the board,
//   reduces  its own share from all ranks at once (rank order 0, 1, 2, ..., rounded once), to where
//            it is needed: its own output, its part of the board, outputs of others,
//   gathers  the other shares, if its output wants them (all-reduce, the root of a reduce).
// Three counters per rank order this; up to kWindowBuffers windows are in flight, so that a rank
// seldom waits. A rank whose input the others reach where it is does not stage. An output that they
// have mapped, or that is in their process, they write in place. Reading plain memory of other
// processes where it is would save the staging, but was measured to be no faster.
//
// It is the fused form of the algorithm `twoshot` and, for a reduce-scatter, of `oneshot`.
#pragma once

#include <vector>

#include "src/execute/board_windows.h"
#include "src/execute/execution.h"

namespace libcomm {

// Does it know this collective?
bool windowed_reduction_knows(Collective collective);

class WindowedReduction final : public Execution {
 public:
  // `window`: wanted bytes per window; the same on all ranks.
  WindowedReduction(const BoardArgs& args, size_t window);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  // When it is over: did all ranks use each other's buffers where they are?
  bool was_in_place() const { return in_place_; }

 private:
  struct Peer {
    const std::byte* in = nullptr;  // its input, when used in place
    std::byte* out = nullptr;       // its output, when used in place
  };
  struct Range {
    size_t begin, bytes;
  };

  bool scatters() const { return args_.operation->collective == Collective::kReduceScatter; }
  // Does every output hold all shares?
  bool collects() const { return args_.operation->collective == Collective::kAllReduce; }
  // Does rank `index` write its share into this rank's output?
  bool is_written_by(int index) const;
  void announce();
  Status meet_peers();
  Range share(uint64_t window, int owner) const;
  size_t place_in_window(uint64_t window, int owner) const;
  void stage();
  Status reduce();
  void reduce_share(const Range& range);
  void gather();
  BoardNeeds to_stage() const { return windows_.free_input(staged_); }
  BoardNeeds to_reduce() const {
    return both(windows_.staged(reduced_), windows_.free_result(reduced_));
  }
  BoardNeeds to_gather() const { return windows_.reduced(gathered_); }
  // The others are done with this rank's memory.
  BoardNeeds to_end() const;
  bool can_stage() { return staged_ < windows_.count() && windows_.reached(to_stage()); }
  bool can_reduce() { return reduced_ < staged_ && windows_.reached(to_reduce()); }
  bool can_gather() { return gathered_ < reduced_ && windows_.reached(to_gather()); }
  bool can_end() { return gathered_ == windows_.count() && windows_.reached(to_end()); }

  BoardArgs args_;
  BoardWindows windows_;
  int n_;
  int me_;
  int root_ = -1;  // of a reduce: by index
  size_t block_bytes_;
  size_t in_bytes_;                                   // of every rank's input
  uint64_t staged_ = 0, reduced_ = 0, gathered_ = 0;  // windows done by this rank
  const std::byte* in_;
  std::byte* out_;
  Access in_access_ = Access::kNone, out_access_ = Access::kNone;
  bool to_board_ = false;  // some rank takes this rank's share from the board
  bool announced_ = false, met_ = false;
  bool in_place_ = true;  // as far as is known
  bool stream_;
  std::vector<Peer> peers_;
  std::vector<const void*> sources_;
};

}  // namespace libcomm
