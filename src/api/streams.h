// Host streams as the API hands them out.
#pragma once

#include <memory>

#include "comm.h"
#include "src/base/status.h"
#include "src/communicator/host_stream.h"

namespace libcomm {

// The stream behind a handle: null for NULL. kInvalidArgument when commHostStreamCreate did not
// make it.
Result<std::shared_ptr<HostStream>> find_stream(cudaStream_t stream);

}  // namespace libcomm
