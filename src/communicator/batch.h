// Batch: what a group does on one communicator: its collectives in order, then its messages
// together.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "src/communicator/active_operation.h"
#include "src/execute/p2p.h"

namespace libcomm {

class Batch final : public Execution {
 public:
  Batch(Communicator& communicator, std::vector<Operation> operations);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  Status advance_collectives(Progress* progress);
  void start_messages();

  Communicator& communicator_;
  std::vector<Operation> collectives_;
  std::vector<Operation> messages_;
  size_t next_ = 0;
  std::optional<ActiveOperation> active_;
  std::optional<P2pBatch> p2p_;
};

}  // namespace libcomm
