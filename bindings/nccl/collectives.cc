// Collectives, point-to-point messages and operators: libcomm's, with NCCL's types.
#include "bindings/nccl/call.h"

using namespace nccl_binding;  // NOLINT: the definitions live in the global namespace

NCCL_EXPORT ncclResult_t pncclAllReduce(const void* sendbuff, void* recvbuff, size_t count,
                                        ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                                        cudaStream_t stream) {
  return result_of(commAllReduce(sendbuff, recvbuff, count, to_comm(datatype), to_comm(op),
                                 to_comm(comm), stream));
}
NCCL_WEAK_TWIN(AllReduce)

NCCL_EXPORT ncclResult_t pncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount,
                                            ncclDataType_t datatype, ncclRedOp_t op,
                                            ncclComm_t comm, cudaStream_t stream) {
  return result_of(commReduceScatter(sendbuff, recvbuff, recvcount, to_comm(datatype), to_comm(op),
                                     to_comm(comm), stream));
}
NCCL_WEAK_TWIN(ReduceScatter)

NCCL_EXPORT ncclResult_t pncclReduce(const void* sendbuff, void* recvbuff, size_t count,
                                     ncclDataType_t datatype, ncclRedOp_t op, int root,
                                     ncclComm_t comm, cudaStream_t stream) {
  return result_of(commReduce(sendbuff, recvbuff, count, to_comm(datatype), to_comm(op), root,
                              to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Reduce)

NCCL_EXPORT ncclResult_t pncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount,
                                        ncclDataType_t datatype, ncclComm_t comm,
                                        cudaStream_t stream) {
  return result_of(
      commAllGather(sendbuff, recvbuff, sendcount, to_comm(datatype), to_comm(comm), stream));
}
NCCL_WEAK_TWIN(AllGather)

NCCL_EXPORT ncclResult_t pncclAlltoAll(const void* sendbuff, void* recvbuff, size_t count,
                                       ncclDataType_t datatype, ncclComm_t comm,
                                       cudaStream_t stream) {
  return result_of(
      commAlltoAll(sendbuff, recvbuff, count, to_comm(datatype), to_comm(comm), stream));
}
NCCL_WEAK_TWIN(AlltoAll)

NCCL_EXPORT ncclResult_t pncclBroadcast(const void* sendbuff, void* recvbuff, size_t count,
                                        ncclDataType_t datatype, int root, ncclComm_t comm,
                                        cudaStream_t stream) {
  return result_of(
      commBroadcast(sendbuff, recvbuff, count, to_comm(datatype), root, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Broadcast)

NCCL_EXPORT ncclResult_t pncclBcast(void* buff, size_t count, ncclDataType_t datatype, int root,
                                    ncclComm_t comm, cudaStream_t stream) {
  return result_of(commBcast(buff, count, to_comm(datatype), root, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Bcast)

NCCL_EXPORT ncclResult_t pncclGather(const void* sendbuff, void* recvbuff, size_t count,
                                     ncclDataType_t datatype, int root, ncclComm_t comm,
                                     cudaStream_t stream) {
  return result_of(
      commGather(sendbuff, recvbuff, count, to_comm(datatype), root, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Gather)

NCCL_EXPORT ncclResult_t pncclScatter(const void* sendbuff, void* recvbuff, size_t count,
                                      ncclDataType_t datatype, int root, ncclComm_t comm,
                                      cudaStream_t stream) {
  return result_of(
      commScatter(sendbuff, recvbuff, count, to_comm(datatype), root, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Scatter)

NCCL_EXPORT ncclResult_t pncclSend(const void* sendbuff, size_t count, ncclDataType_t datatype,
                                   int peer, ncclComm_t comm, cudaStream_t stream) {
  return result_of(commSend(sendbuff, count, to_comm(datatype), peer, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Send)

NCCL_EXPORT ncclResult_t pncclRecv(void* recvbuff, size_t count, ncclDataType_t datatype, int peer,
                                   ncclComm_t comm, cudaStream_t stream) {
  return result_of(commRecv(recvbuff, count, to_comm(datatype), peer, to_comm(comm), stream));
}
NCCL_WEAK_TWIN(Recv)

NCCL_EXPORT ncclResult_t pncclRedOpCreatePreMulSum(ncclRedOp_t* op, void* scalar,
                                                   ncclDataType_t datatype,
                                                   ncclScalarResidence_t residence,
                                                   ncclComm_t comm) {
  return result_of(
      commRedOpCreatePreMulSum(reinterpret_cast<commRedOp_t*>(op), scalar, to_comm(datatype),
                               static_cast<commScalarResidence_t>(residence), to_comm(comm)));
}
NCCL_WEAK_TWIN(RedOpCreatePreMulSum)

NCCL_EXPORT ncclResult_t pncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm) {
  return result_of(commRedOpDestroy(to_comm(op), to_comm(comm)));
}
NCCL_WEAK_TWIN(RedOpDestroy)
