// OperationLoans: the caller's buffers, lent to the transports for as long as an operation runs.
//
// While a call has not returned its buffers are neither freed nor mapped anew. So devices may use
// them in place for that long, and no longer.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "src/communicator/lent_memory.h"
#include "src/execute/operation.h"
#include "transports/transport.h"

namespace libcomm {

class OperationLoans {
 public:
  OperationLoans() = default;
  OperationLoans(const OperationLoans&) = delete;
  OperationLoans& operator=(const OperationLoans&) = delete;
  // The transport, given with the first loan, drops what it had of them. It sends and receives
  // nothing with them any more: the operation is over, or its channels were told to withdraw.
  ~OperationLoans();

  // Who is lent to, and from which size on; without `memory` nothing is lent.
  struct To {
    LentMemory* memory = nullptr;
    Transport* transport = nullptr;
    size_t least_bytes = 0;
  };
  // The buffers of a collective, as far as its schedule on this rank uses them.
  void lend(const To& to, const Schedule& schedule, const Operation& operation);
  // Those of the messages among the operations, but for messages to `rank` itself.
  void lend(const To& to, std::span<const Operation> operations, int rank);

 private:
  void lend(const To& to, const void* base, size_t bytes);

  To to_;
  std::vector<uint64_t> ids_;
};

}  // namespace libcomm
