// Interpreter: the host executor. Runs one rank's schedule over channels, on CPU memory.
//
// Each lane goes through its steps in order. A send is posted and the lane goes on; a step that
// writes what is still being sent waits. Messages are cut into segments; a fused receive-and-send
// passes each segment on as soon as it is there, so that a ring pipelines without slices.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "src/execute/execution.h"
#include "src/execute/layout.h"
#include "src/execute/operation.h"
#include "src/execute/reduce_pool.h"
#include "src/reduce/reduce.h"
#include "src/schedule/schedule.h"

namespace libcomm {

struct InterpreterArgs {
  const Schedule* schedule = nullptr;  // outlives the interpreter
  const Operation* operation = nullptr;
  const Layout* layout = nullptr;
  Signature signature;
  ReduceKernel kernel = nullptr;  // null for collectives that do not reduce
  ReducePool* pool = nullptr;     // may be null
  Ports* ports = nullptr;
  size_t segment_bytes = 0;  // the same on all ranks
  int slices = 1;
  std::byte* scratch = nullptr;  // layout.scratch_bytes() of it
};

class Interpreter final : public Execution {
 public:
  explicit Interpreter(const InterpreterArgs& args);
  ~Interpreter() override;
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  class LaneRun;
  InterpreterArgs args_;
  std::vector<std::unique_ptr<LaneRun>> lanes_;
};

}  // namespace libcomm
