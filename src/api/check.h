// Argument checks of the C API: a bad value becomes a Status that names it and the remedy.
#pragma once

#include <cstddef>

#include "comm.h"
#include "src/communicator/communicator.h"
#include "src/execute/operation.h"

namespace libcomm {

Result<DataType> check_type(commDataType_t type);
// Sets op, average, premultiply and scalar of the operation, whose type is set.
Status check_op(commRedOp_t op, const Communicator& communicator, Operation* operation);
// GPU memory, managed and pinned memory. False in a process without CUDA.
bool is_known_to_cuda(const void* address);
Status check_root(int root, const Communicator& communicator, const char* name);
// count * blocks elements must be addressable.
Status check_count(size_t count, size_t blocks, DataType type, const char* name);
Status check_pointer(const void* pointer, const char* name);
// The two ranges share no byte; `remedy` says which in-place form the call has.
Status check_disjoint(const void* a, size_t a_bytes, const void* b, size_t b_bytes,
                      const char* remedy);

}  // namespace libcomm
