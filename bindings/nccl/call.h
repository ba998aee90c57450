// What every call of the binding is made of: comm.h's types out of nccl.h's, results back, and the
// two names under which NCCL exports a call.
#pragma once

#include <cstring>

#include "bindings/nccl/nccl.h"
#include "comm.h"

// Defines ncclX as the weak twin of pncclX, which the same file has defined: a profiler may put a
// definition of its own in front and go on with pncclX.
#define NCCL_WEAK_TWIN(call)                            \
  extern "C" __attribute__((weak, alias("pnccl" #call), \
                            visibility("default"))) decltype(pnccl##call) nccl##call;

#define NCCL_EXPORT extern "C" __attribute__((visibility("default")))

namespace nccl_binding {

// Values and layouts agree, as types.cc proves; handles are libcomm's own.
inline comm_t to_comm(ncclComm_t comm) { return reinterpret_cast<comm_t>(comm); }
inline comm_t* to_comm(ncclComm_t* comm) { return reinterpret_cast<comm_t*>(comm); }
inline commDataType_t to_comm(ncclDataType_t type) { return static_cast<commDataType_t>(type); }
inline commRedOp_t to_comm(ncclRedOp_t op) { return static_cast<commRedOp_t>(op); }
inline commUniqueId to_comm(const ncclUniqueId& id) {
  commUniqueId copy;
  std::memcpy(&copy, &id, sizeof copy);
  return copy;
}

// The result of a call of libcomm, which then has the text of a failure, too.
ncclResult_t result_of(commResult_t result);

// A failure that the binding itself has found, on `comm` (null: none); `text` (static) is what
// ncclGetLastError answers.
ncclResult_t refuse(ncclResult_t result, const char* text, ncclComm_t comm);

// The program has been told that `comm` has failed, other than by the result of a call.
void note_failure_of(ncclComm_t comm);

// Hands libcomm what the NCCL_* variables and NCCL's files say now (environment.cc).
void read_environment();

}  // namespace nccl_binding
