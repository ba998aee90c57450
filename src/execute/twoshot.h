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

#include "src/execute/board_layout.h"
#include "src/execute/execution.h"
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

class Twoshot final : public Execution {
 public:
  // `window`: wanted bytes per window; the same on all ranks.
  Twoshot(const BoardArgs& args, size_t window);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;

 private:
  struct Peer {
    std::byte* part = nullptr;
    uint64_t staged = 0, reduced = 0, gathered = 0;  // last seen
    const std::byte* in = nullptr;                   // its input, when used in place
    std::byte* out = nullptr;                        // its output, when used in place
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
  void tell(std::atomic<uint64_t>& counter, uint64_t value);
  // True when every peer's counter has reached `value`.
  bool reached(std::atomic<uint64_t> BoardControl::*counter, uint64_t Peer::*seen, uint64_t value);
  bool can_stage();
  bool can_reduce();
  bool can_gather();

  BoardArgs args_;
  int n_;
  int me_;
  size_t bytes_;
  Staging staging_;
  const bool relaid_;  // the windows before were laid out otherwise
  uint64_t first_;     // number of the first window, over all operations
  uint64_t windows_;   // of this operation
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
