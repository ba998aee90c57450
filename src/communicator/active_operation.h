// ActiveOperation: one collective of one communicator from its first step to its last.
#pragma once

#include <memory>
#include <optional>

#include "src/base/aligned_buffer.h"
#include "src/communicator/operation_loans.h"
#include "src/execute/interpreter.h"
#include "src/execute/oneshot.h"
#include "src/execute/windowed_copy.h"
#include "src/execute/windowed_reduction.h"
#include "src/plan/plan.h"

namespace libcomm {

class Communicator;

class ActiveOperation final : public Execution {
 public:
  // `operation` outlives this object. Counts the operation; does what needs no peer.
  Status start(Communicator& communicator, const Operation& operation);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;
  // The exchange that carried it out, if it was a one-shot of the caller's own buffers.
  const OneshotCall* oneshot_call() const {
    return oneshot_ && operation_ != &own_ ? &plan_->oneshot : nullptr;
  }

 private:
  void note_reach();
  Status scale_input(const Operation& operation, int nranks);

  const Operation* operation_ = nullptr;
  Operation own_;  // a changed copy of the caller's operation, when it has to be changed
  AlignedBuffer scaled_;
  OperationLoans loans_;        // ends after what uses them, before our own memory
  OneshotCall own_call_;        // of an operation that was planned otherwise
  const Plan* plan_ = nullptr;  // the planner's; nothing else is planned meanwhile
  std::optional<Oneshot> oneshot_;
  std::optional<WindowedReduction> windowed_reduction_;
  std::optional<WindowedCopy> windowed_copy_;
  std::optional<Interpreter> interpreter_;
  Execution* running_ = nullptr;  // null: nothing (more) to do
  BoardState* board_state_ = nullptr;
  const BoardView* unverified_ = nullptr;  // set until check_oneshots() is satisfied
  int unverified_peer_ = -1;               // whom it waits for
  unsigned char barrier_in_ = 0, barrier_out_ = 0;
};

}  // namespace libcomm
