// Two-shot all-reduce: a large all-reduce through the board, pipelined over windows.
//
// The buffer is cut into windows, a window into one share per rank. For each window a rank
//   stages   copies the other ranks' shares of its input into its part of the board,
//   reduces  its own share from all ranks at once (rank order 0, 1, 2, ..., rounded once) into its
//   own
//            output and into its part of the board,
//   gathers  the other shares from where their owners put them.
// Three counters per rank order this; up to kWindowBuffers windows are in flight, so that a rank
// seldom waits. A rank whose input lies in a commMemAlloc segment does not stage: the owners of the
// shares read it in place. A rank whose output lies in one does not gather: the owners write it in
// place.
//
// It is the fused form of the algorithm `twoshot`.
#pragma once

#include <vector>

#include "src/execute/board_windows.h"
#include "src/execute/execution.h"

namespace libcomm {

class Twoshot final : public Execution {
 public:
  // `window`: wanted bytes per window; the same on all ranks.
  Twoshot(const BoardArgs& args, size_t window);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;

 private:
  struct Peer {
    const std::byte* in = nullptr;  // its input, when used in place
    std::byte* out = nullptr;       // its output, when used in place
  };
  struct Range {
    size_t begin, bytes;
  };

  void announce();
  Status meet_peers();
  Range share(uint64_t window, int owner) const;
  void stage();
  void reduce();
  void gather();
  BoardNeeds to_stage() const { return windows_.free_input(staged_); }
  BoardNeeds to_reduce() const {
    return both(windows_.staged(reduced_), windows_.free_result(reduced_));
  }
  BoardNeeds to_gather() const { return windows_.reduced(gathered_); }
  bool can_stage() { return staged_ < windows_.count() && windows_.reached(to_stage()); }
  bool can_reduce() { return reduced_ < staged_ && windows_.reached(to_reduce()); }
  bool can_gather() { return gathered_ < reduced_ && windows_.reached(to_gather()); }

  BoardArgs args_;
  BoardWindows windows_;
  int n_;
  int me_;
  size_t bytes_;
  uint64_t staged_ = 0, reduced_ = 0, gathered_ = 0;  // windows done by this rank
  const std::byte* in_;
  std::byte* out_;
  bool in_mapped_ = false, out_mapped_ = false;
  bool all_out_mapped_ = true;  // of the peers
  bool announced_ = false, met_ = false;
  bool stream_;
  std::vector<Peer> peers_;
  std::vector<const void*> sources_;
};

}  // namespace libcomm
