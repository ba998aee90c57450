// Batch: what a group does on one communicator: its collectives in order, then its messages
// together.
#pragma once

#include <optional>
#include <span>

#include "src/communicator/active_operation.h"
#include "src/execute/p2p.h"

namespace libcomm {

class Batch final : public Execution {
 public:
  // `operations` outlive this object. Starts counting when it first advances.
  Batch(Communicator& communicator, std::span<const Operation> operations);
  ~Batch() override;
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  // The first collective from `index` on, or the end.
  size_t collective_from(size_t index) const;
  Status advance_collectives(Progress* progress);

  Communicator& communicator_;
  const std::span<const Operation> operations_;
  size_t next_ = 0;      // the collective that is running or comes next
  size_t spanned_ = 1;   // entries that the running one covers
  bool merged_ = false;  // it stands for several
  bool has_messages_ = false;
  std::optional<ActiveOperation> active_;
  OperationLoans loans_;          // of the messages; ends after abandon()
  P2pBatch* messages_ = nullptr;  // the communicator's, once they are in progress
};

}  // namespace libcomm
