// One-shot exchange: a whole small collective through the board.
//
// Every rank writes what the others need into its slot, flag last; waits for the flags of all; and
// takes what it needs. Two slots in turn are enough: a rank that starts exchange n+2 has seen every
// flag of n+1, and a rank sets that flag only after it has read the slots of n. Every rank waits
// for every other in every collective, rooted ones too, for that reason.
//
// It is the fused form of the algorithm `oneshot`: reductions combine ranks 0, 1, 2, ... in order,
// rounded once.
#pragma once

#include "src/execute/board_layout.h"
#include "src/execute/execution.h"
#include "src/execute/operation.h"
#include "src/execute/reduce_pool.h"
#include "src/reduce/reduce.h"

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

// Bytes that one rank has to publish; the exchange applies when it is at most kOneshotBytes.
size_t oneshot_bytes(const Operation& operation, int nranks);
// Does the exchange know this collective?
bool oneshot_knows(Collective collective);

class Oneshot final : public Execution {
 public:
  explicit Oneshot(const BoardArgs& args);
  Status advance(Progress* progress) override;

 private:
  void publish();
  Status find_stuck_peer(bool* all_here);
  void take();
  void reduce_from(size_t offset, void* dst);
  const std::byte* data_of(int index) const;

  BoardArgs args_;
  uint64_t number_;
  uint64_t flag_;
  size_t bytes_;        // published by one rank
  size_t block_bytes_;  // of one block
  int next_peer_ = 0;   // all before it are here
  bool published_ = false;
};

}  // namespace libcomm
