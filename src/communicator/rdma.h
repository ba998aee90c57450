// Opening the RDMA transport, where this build has it.
#pragma once

#include <memory>

#include "src/base/knobs.h"
#include "src/bootstrap/bootstrap.h"
#include "transports/transport.h"
#include "transports/user_memory.h"

namespace libcomm {

// Collective among ranks of the same build; null on all of them when no two can talk by RDMA, or
// the build has none. `numa_node` is where this rank runs, -1 when it is not bound.
Result<std::unique_ptr<Transport>> open_rdma(Bootstrap& bootstrap,
                                             std::shared_ptr<const Knobs> knobs,
                                             std::shared_ptr<const UserMemory> memory,
                                             int numa_node);

}  // namespace libcomm
