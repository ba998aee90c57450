// Placement: where a call's memory is, and on which kind of stream it runs.
#pragma once

#include <memory>

#include "comm.h"
#include "src/base/status.h"
#include "src/communicator/communicator.h"
#include "src/communicator/gpu_work.h"
#include "src/communicator/host_stream.h"

namespace libcomm {

struct Placement {
  std::shared_ptr<HostStream> host_stream;  // null: none
  // GPU memory, or host memory in the order of a CUDA stream.
  bool on_cuda = false;
  cuda::CUstream cuda_stream = nullptr;  // NULL is CUDA's default stream, where on_cuda
  GpuPlace gpu;
};

// Looks at the buffers, sets operation->on_gpu. Never calls a CUDA driver that the program has not
// loaded. kInvalidArgument: a stream that is none; host and GPU memory in one call; memory of
// another GPU than the stream's; memory that neither the host nor a GPU can read; GPU memory on a
// host stream.
Result<Placement> place(const Communicator& communicator, Operation* operation,
                        cudaStream_t stream);

}  // namespace libcomm
