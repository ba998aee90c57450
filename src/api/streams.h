// Host streams as the API hands them out.
#pragma once

#include <memory>

#include "comm.h"
#include "src/base/status.h"
#include "src/communicator/host_stream.h"

namespace libcomm {

// The stream behind a handle; null when commHostStreamCreate did not make it.
std::shared_ptr<HostStream> find_host_stream(cudaStream_t stream);
// kInvalidArgument: what a stream is that is not one of these, in a process without CUDA.
Status unknown_stream(cudaStream_t stream);

}  // namespace libcomm
