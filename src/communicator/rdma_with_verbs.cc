#include "src/communicator/rdma.h"
#include "transports/cuda_memory.h"
#include "transports/rdma/transport.h"

namespace libcomm {

Result<std::unique_ptr<Transport>> open_rdma(Bootstrap& bootstrap,
                                             std::shared_ptr<const Knobs> knobs,
                                             std::shared_ptr<const UserMemory> memory,
                                             int numa_node) {
  COMM_ASSIGN(auto made,
              rdma::make_rdma_transport(bootstrap, {std::move(knobs), std::move(memory), numa_node,
                                                    CudaMemory::of_this_process()}));
  return std::unique_ptr<Transport>(std::move(made));
}

}  // namespace libcomm
