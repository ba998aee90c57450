// Communicators and groups. What differs from libcomm: the NCCL_* variables are read.
#include <cstddef>

#include "bindings/nccl/call.h"
#include "bindings/nccl/config.h"

using namespace nccl_binding;  // NOLINT: the definitions live in the global namespace

NCCL_EXPORT ncclResult_t pncclGetUniqueId(ncclUniqueId* uniqueId) {
  read_environment();
  return result_of(commGetUniqueId(reinterpret_cast<commUniqueId*>(uniqueId)));
}
NCCL_WEAK_TWIN(GetUniqueId)

NCCL_EXPORT ncclResult_t pncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId commId,
                                           int rank) {
  read_environment();
  return result_of(commInitRank(to_comm(comm), nranks, to_comm(commId), rank));
}
NCCL_WEAK_TWIN(CommInitRank)

NCCL_EXPORT ncclResult_t pncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId commId,
                                                 int rank, ncclConfig_t* config) {
  read_environment();
  return result_of(
      commInitRankConfig(to_comm(comm), nranks, to_comm(commId), rank, Config(config).get()));
}
NCCL_WEAK_TWIN(CommInitRankConfig)

NCCL_EXPORT ncclResult_t pncclCommInitRankScalable(ncclComm_t* newcomm, int nranks, int myrank,
                                                   int nId, ncclUniqueId* commIds,
                                                   ncclConfig_t* config) {
  read_environment();
  return result_of(commInitRankScalable(to_comm(newcomm), nranks, myrank, nId,
                                        reinterpret_cast<commUniqueId*>(commIds),
                                        Config(config).get()));
}
NCCL_WEAK_TWIN(CommInitRankScalable)

NCCL_EXPORT ncclResult_t pncclCommInitAll(ncclComm_t* comm, int ndev, const int* devlist) {
  read_environment();
  return result_of(commInitAll(to_comm(comm), ndev, devlist));
}
NCCL_WEAK_TWIN(CommInitAll)

NCCL_EXPORT ncclResult_t pncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* newcomm,
                                        ncclConfig_t* config) {
  read_environment();
  return result_of(commSplit(to_comm(comm), color, key, to_comm(newcomm), Config(config).get()));
}
NCCL_WEAK_TWIN(CommSplit)

NCCL_EXPORT ncclResult_t pncclCommShrink(ncclComm_t comm, int* excludeRanksList,
                                         int excludeRanksCount, ncclComm_t* newcomm,
                                         ncclConfig_t* config, int shrinkFlags) {
  read_environment();
  return result_of(commShrink(to_comm(comm), excludeRanksList, excludeRanksCount, to_comm(newcomm),
                              Config(config).get(), shrinkFlags));
}
NCCL_WEAK_TWIN(CommShrink)

NCCL_EXPORT ncclResult_t pncclCommFinalize(ncclComm_t comm) {
  return result_of(commFinalize(to_comm(comm)));
}
NCCL_WEAK_TWIN(CommFinalize)

NCCL_EXPORT ncclResult_t pncclCommDestroy(ncclComm_t comm) {
  return result_of(commDestroy(to_comm(comm)));
}
NCCL_WEAK_TWIN(CommDestroy)

NCCL_EXPORT ncclResult_t pncclCommAbort(ncclComm_t comm) {
  return result_of(commAbort(to_comm(comm)));
}
NCCL_WEAK_TWIN(CommAbort)

NCCL_EXPORT ncclResult_t pncclCommRevoke(ncclComm_t comm, int revokeFlags) {
  return result_of(commRevoke(to_comm(comm), revokeFlags));
}
NCCL_WEAK_TWIN(CommRevoke)

NCCL_EXPORT ncclResult_t pncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* asyncError) {
  const auto result =
      result_of(commGetAsyncError(to_comm(comm), reinterpret_cast<commResult_t*>(asyncError)));
  if (result == ncclSuccess && *asyncError != ncclSuccess && *asyncError != ncclInProgress)
    note_failure_of(comm);
  return result;
}
NCCL_WEAK_TWIN(CommGetAsyncError)

NCCL_EXPORT ncclResult_t pncclCommCount(const ncclComm_t comm, int* count) {
  return result_of(commCount(to_comm(comm), count));
}
NCCL_WEAK_TWIN(CommCount)

NCCL_EXPORT ncclResult_t pncclCommUserRank(const ncclComm_t comm, int* rank) {
  return result_of(commUserRank(to_comm(comm), rank));
}
NCCL_WEAK_TWIN(CommUserRank)

NCCL_EXPORT ncclResult_t pncclCommCuDevice(const ncclComm_t comm, int* device) {
  return result_of(commCuDevice(to_comm(comm), device));
}
NCCL_WEAK_TWIN(CommCuDevice)

NCCL_EXPORT ncclResult_t pncclGroupStart() { return result_of(commGroupStart()); }
NCCL_WEAK_TWIN(GroupStart)

NCCL_EXPORT ncclResult_t pncclGroupEnd() { return result_of(commGroupEnd()); }
NCCL_WEAK_TWIN(GroupEnd)

NCCL_EXPORT ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t* simInfo) {
  static_assert(sizeof(ncclSimInfo_t) == sizeof(commSimInfo_t));
  auto* info = reinterpret_cast<commSimInfo_t*>(simInfo);
  // NCCL ends the group also when it refuses simInfo; libcomm leaves it open then.
  const bool is_info = info == nullptr || (info->size >= offsetof(commSimInfo_t, estimatedTime) &&
                                           info->magic == 0x74685283);
  if (!is_info) (void)commGroupSimulateEnd(nullptr);
  return result_of(commGroupSimulateEnd(info));
}
NCCL_WEAK_TWIN(GroupSimulateEnd)
