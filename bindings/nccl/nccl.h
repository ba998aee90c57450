/* nccl.h of libcomm: what a program needs to be compiled for libnccl.so.2 on a machine without
 * NCCL.
 *
 * Source- and ABI-compatible with NCCL 2.28.9 for host code: the same names, values, struct layouts
 * and signatures, so that a program compiled with this header runs with NVIDIA's library, and one
 * compiled with NVIDIA's header runs with libcomm's. What the calls do here: docs/nccl.md; each is
 * described under its libcomm name in comm.h. It needs no CUDA header and includes none.
 */
#ifndef NCCL_H_
#define NCCL_H_

#include <limits.h>
#include <stddef.h>

#define NCCL_MAJOR 2
#define NCCL_MINOR 28
#define NCCL_PATCH 9
#define NCCL_SUFFIX ""
#define NCCL_VERSION_CODE 22809
#define NCCL_VERSION(major, minor, patch)                                            \
  ((major) < 2 || ((major) == 2 && (minor) < 9)                                      \
       ? 1000 * (major) + 100 * (minor) + (patch) /* how it was counted until 2.8 */ \
       : 10000 * (major) + 100 * (minor) + (patch))

#ifdef __cplusplus
extern "C" {
#endif

/* Opaque types; the stream's is CUDA's own. */
typedef struct CUstream_st* cudaStream_t;
typedef struct ncclComm* ncclComm_t;
typedef struct ncclWindow_vidmem* ncclWindow_t;
#define NCCL_COMM_NULL NULL

/* Result codes */
typedef enum {
  ncclSuccess = 0,
  ncclUnhandledCudaError,
  ncclSystemError,
  ncclInternalError,
  ncclInvalidArgument,
  ncclInvalidUsage,
  ncclRemoteError,
  ncclInProgress,
  ncclNumResults
} ncclResult_t;

/* Element types */
typedef enum {
  ncclInt8 = 0,
  ncclUint8,
  ncclInt32,
  ncclUint32,
  ncclInt64,
  ncclUint64,
  ncclFloat16,
  ncclFloat32,
  ncclFloat64,
  ncclBfloat16,
  ncclFloat8e4m3,
  ncclFloat8e5m2,
  ncclNumTypes,
  /* Other names of the same */
  ncclChar = ncclInt8,
  ncclInt = ncclInt32,
  ncclHalf = ncclFloat16,
  ncclFloat = ncclFloat32,
  ncclDouble = ncclFloat64
} ncclDataType_t;

/* Operators; from ncclNumOps on they are made by ncclRedOpCreatePreMulSum. */
typedef enum {
  ncclSum = 0,
  ncclProd,
  ncclMax,
  ncclMin,
  ncclAvg,
  ncclNumOps,
  ncclMaxRedOp = INT_MAX
} ncclRedOp_t;

typedef enum { ncclScalarDevice = 0, ncclScalarHostImmediate } ncclScalarResidence_t;

#define NCCL_UNIQUE_ID_BYTES 128
typedef struct {
  char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

/* Flags */
#define NCCL_SPLIT_NOCOLOR -1
#define NCCL_WIN_DEFAULT 0x00
#define NCCL_WIN_COLL_SYMMETRIC 0x01
#define NCCL_WIN_REQUIRED_ALIGNMENT 4096
#define NCCL_CTA_POLICY_DEFAULT 0x00
#define NCCL_CTA_POLICY_EFFICIENCY 0x01
#define NCCL_CTA_POLICY_ZERO 0x02
#define NCCL_SHRINK_DEFAULT 0x00
#define NCCL_SHRINK_ABORT 0x01
#define NCCL_REVOKE_DEFAULT 0x00

/* What an option is that the caller leaves to the library */
#define NCCL_CONFIG_UNDEF_INT INT_MIN
#define NCCL_CONFIG_UNDEF_PTR NULL
#define NCCL_UNDEF_FLOAT -1.0f

/* Options of a communicator; to be started from NCCL_CONFIG_INITIALIZER. */
typedef struct ncclConfig_v22800 {
  size_t size;
  unsigned int magic, version;
  int blocking;
  int cgaClusterSize, minCTAs, maxCTAs;
  const char* netName;
  int splitShare;
  int trafficClass;
  const char* commName;
  int collnetEnable;
  int CTAPolicy;
  int shrinkShare;
  int nvlsCTAs;
  int nChannelsPerNetPeer;
  int nvlinkCentricSched;
} ncclConfig_t;

/* clang-format off */
#define NCCL_CONFIG_INITIALIZER                                              \
  {sizeof(ncclConfig_t), 0xcafebeef, NCCL_VERSION_CODE,                      \
   INT_MIN /* blocking */, INT_MIN, INT_MIN, INT_MIN /* CTAs */,             \
   NULL /* netName */, INT_MIN, INT_MIN, NULL /* commName */,                \
   INT_MIN, INT_MIN, INT_MIN, INT_MIN, INT_MIN, INT_MIN}
/* clang-format on */

/* What ncclGroupSimulateEnd fills in; to be started from NCCL_SIM_INFO_INITIALIZER. */
typedef struct ncclSimInfo_v22200 {
  size_t size;
  unsigned int magic, version;
  float estimatedTime; /* microseconds */
} ncclSimInfo_t;

#define NCCL_SIM_INFO_INITIALIZER \
  { sizeof(ncclSimInfo_t), 0x74685283, NCCL_VERSION_CODE, NCCL_UNDEF_FLOAT }

/* Every call has a second name, for profilers: they define ncclX and go on with pncclX. */
#define NCCL_TWO_NAMES(result, call, arguments) \
  result nccl##call arguments;                  \
  result pnccl##call arguments

/* clang-format off */
NCCL_TWO_NAMES(ncclResult_t, GetVersion, (int* version));
NCCL_TWO_NAMES(const char*, GetErrorString, (ncclResult_t result));
NCCL_TWO_NAMES(const char*, GetLastError, (ncclComm_t comm));
NCCL_TWO_NAMES(void, ResetDebugInit, (void));
NCCL_TWO_NAMES(ncclResult_t, GetUniqueId, (ncclUniqueId* uniqueId));

NCCL_TWO_NAMES(ncclResult_t, CommInitRank, (ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank));
NCCL_TWO_NAMES(ncclResult_t, CommInitRankConfig, (ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t* config));
NCCL_TWO_NAMES(ncclResult_t, CommInitRankScalable, (ncclComm_t* newcomm, int nranks, int myrank, int nId, ncclUniqueId* commIds, ncclConfig_t* config));
NCCL_TWO_NAMES(ncclResult_t, CommInitAll, (ncclComm_t* comm, int ndev, const int* devlist));
NCCL_TWO_NAMES(ncclResult_t, CommSplit, (ncclComm_t comm, int color, int key, ncclComm_t* newcomm, ncclConfig_t* config));
NCCL_TWO_NAMES(ncclResult_t, CommShrink, (ncclComm_t comm, int* excludeRanksList, int excludeRanksCount, ncclComm_t* newcomm, ncclConfig_t* config, int shrinkFlags));
NCCL_TWO_NAMES(ncclResult_t, CommFinalize, (ncclComm_t comm));
NCCL_TWO_NAMES(ncclResult_t, CommDestroy, (ncclComm_t comm));
NCCL_TWO_NAMES(ncclResult_t, CommAbort, (ncclComm_t comm));
NCCL_TWO_NAMES(ncclResult_t, CommRevoke, (ncclComm_t comm, int revokeFlags));
NCCL_TWO_NAMES(ncclResult_t, CommGetAsyncError, (ncclComm_t comm, ncclResult_t* asyncError));
NCCL_TWO_NAMES(ncclResult_t, CommCount, (const ncclComm_t comm, int* count));
NCCL_TWO_NAMES(ncclResult_t, CommUserRank, (const ncclComm_t comm, int* rank));
NCCL_TWO_NAMES(ncclResult_t, CommCuDevice, (const ncclComm_t comm, int* device));

NCCL_TWO_NAMES(ncclResult_t, MemAlloc, (void** ptr, size_t size));
NCCL_TWO_NAMES(ncclResult_t, MemFree, (void* ptr));
NCCL_TWO_NAMES(ncclResult_t, CommRegister, (const ncclComm_t comm, void* buff, size_t size, void** handle));
NCCL_TWO_NAMES(ncclResult_t, CommDeregister, (const ncclComm_t comm, void* handle));
NCCL_TWO_NAMES(ncclResult_t, CommWindowRegister, (ncclComm_t comm, void* buff, size_t size, ncclWindow_t* win, int winFlags));
NCCL_TWO_NAMES(ncclResult_t, CommWindowDeregister, (ncclComm_t comm, ncclWindow_t win));

NCCL_TWO_NAMES(ncclResult_t, RedOpCreatePreMulSum, (ncclRedOp_t* op, void* scalar, ncclDataType_t datatype, ncclScalarResidence_t residence, ncclComm_t comm));
NCCL_TWO_NAMES(ncclResult_t, RedOpDestroy, (ncclRedOp_t op, ncclComm_t comm));

NCCL_TWO_NAMES(ncclResult_t, AllReduce, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, ReduceScatter, (const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Reduce, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, AllGather, (const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, AlltoAll, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Broadcast, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Bcast, (void* buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Gather, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Scatter, (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Send, (const void* sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream));
NCCL_TWO_NAMES(ncclResult_t, Recv, (void* recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream));

NCCL_TWO_NAMES(ncclResult_t, GroupStart, (void));
NCCL_TWO_NAMES(ncclResult_t, GroupEnd, (void));
NCCL_TWO_NAMES(ncclResult_t, GroupSimulateEnd, (ncclSimInfo_t* simInfo));
/* clang-format on */

#undef NCCL_TWO_NAMES

#ifdef __cplusplus
}
#endif

#endif /* NCCL_H_ */
