/* libcomm: collective communication between processes, threads and machines.
 *
 * This is the whole public C API (C11; no CUDA header is needed). Names mirror NCCL 2.28, so that
 *   sed -e s/ncclComm/comm/g -e s/nccl/comm/g -e s/NCCL_/COMM_/g
 * ports a host program. What libcomm adds is under "Extensions" and is marked so.
 *
 * Threads.  One communicator is used by one thread at a time, and all its ranks make the same
 *   collective calls in the same order. Different communicators may be used by different threads at
 *   once. Exceptions, callable from any thread at any time: commAbort, commRevoke,
 *   commGetAsyncError, commGetLastError, commGetMemStats and the calls that take no communicator.
 *   Groups (commGroupStart/End) and commGetLastError(NULL)'s text belong to the calling thread.
 *
 * Fork.  A forked child inherits no communicator: its handles answer commInvalidUsage there, the
 *   library's descriptors are closed in it, and the parent is not disturbed. A child may create
 *   communicators of its own.
 *
 * Memory.  Buffers may be any host memory, or GPU memory (docs/gpu.md). Host memory from
 *   commMemAlloc is read and written in place by ranks on the same host; other memory is staged.
 *
 * Streams.  NULL: the call runs in the calling thread, after everything queued earlier on this
 *   communicator, and returns when the result is there; with GPU memory NULL is CUDA's default
 *   stream. A CUDA stream: the call returns when its commands are in the stream. A stream from
 *   commHostStreamCreate: the call queues and returns at once; buffers stay in use until the stream
 *   has been synchronised.
 *
 * Errors.  Every call returns a commResult_t; commGetLastError gives one line that names the value,
 *   the rank and the remedy. After commRemoteError or commSystemError from an operation, the
 *   communicator is broken: abort it. Output buffers are then undefined.
 *
 * Results common to all calls that take a communicator:
 *   commInvalidArgument  a NULL, destroyed or foreign handle, or a bad value, which the text names;
 *                        but NULL may be finalized, destroyed, aborted and revoked, as in NCCL
 *   commInvalidUsage     a legal value at an illegal moment (after commFinalize, in a forked child,
 *                        in-place rules broken, mismatched calls between ranks)
 *   commSystemError      the operating system refused something, or a deadline passed
 *   commRemoteError      another rank died, aborted or left
 *   commInProgress       a non-blocking communicator (blocking = 0) has not finished yet
 */
#ifndef COMM_H_
#define COMM_H_

#include <limits.h>
#include <stddef.h>

#define COMM_MAJOR 2
#define COMM_MINOR 28
#define COMM_PATCH 9
#define COMM_SUFFIX ""

/* The level of the API, not of the library: NCCL's numbering, because ported programs test it. */
#define COMM_VERSION_CODE 22809
#define COMM_VERSION(X, Y, Z) \
  (((X) <= 2 && (Y) <= 8) ? (X)*1000 + (Y)*100 + (Z) : (X)*10000 + (Y)*100 + (Z))

#if defined(__GNUC__)
#define COMM_API __attribute__((visibility("default")))
#else
#define COMM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The type CUDA itself declares; repeated here so that no CUDA header is needed. */
typedef struct CUstream_st* cudaStream_t;

/* A communicator: one rank's membership in a group of ranks. */
typedef struct comm* comm_t;
#define COMM_COMM_NULL NULL
/* A registered window (commWindowRegister). */
typedef struct commWindow_vidmem* commWindow_t;

/* How a group finds itself: addresses, a port and a random secret. Treat it as a password. */
#define COMM_UNIQUE_ID_BYTES 128
typedef struct {
  char internal[COMM_UNIQUE_ID_BYTES];
} commUniqueId;

typedef enum {
  commSuccess = 0,
  commUnhandledCudaError = 1,
  commSystemError = 2,
  commInternalError = 3,
  commInvalidArgument = 4,
  commInvalidUsage = 5,
  commRemoteError = 6,
  commInProgress = 7,
  commNumResults = 8
} commResult_t;

#define COMM_CONFIG_UNDEF_INT INT_MIN
#define COMM_CONFIG_UNDEF_PTR NULL
#define COMM_SPLIT_NOCOLOR -1
#define COMM_UNDEF_FLOAT -1.0f

/* commWindowRegister flags */
#define COMM_WIN_DEFAULT 0x00
#define COMM_WIN_COLL_SYMMETRIC 0x01
#define COMM_WIN_REQUIRED_ALIGNMENT 4096

/* commConfig_t.CTAPolicy; accepted, without effect on host memory */
#define COMM_CTA_POLICY_DEFAULT 0x00
#define COMM_CTA_POLICY_EFFICIENCY 0x01
#define COMM_CTA_POLICY_ZERO 0x02

/* commShrink flags */
#define COMM_SHRINK_DEFAULT 0x00 /* the parent is healthy and idle */
#define COMM_SHRINK_ABORT 0x01   /* first end what runs on the parent, then shrink */

/* commRevoke flags; must be 0 */
#define COMM_REVOKE_DEFAULT 0x00

/* Options of one communicator. Start from COMM_CONFIG_INITIALIZER; a field left undefined takes the
 * library's choice. A caller's struct may be shorter or longer than this library's (size says). */
typedef struct commConfig_v22800 {
  size_t size; /* set by the initializer, as magic and version */
  unsigned int magic;
  unsigned int version;
  int blocking;         /* 1 (default): calls return when done; 0: operations, commFinalize and what
                           makes a communicator may return commInProgress; all else blocks */
  int cgaClusterSize;   /* GPU only */
  int minCTAs;          /* least lanes */
  int maxCTAs;          /* most lanes */
  const char* netName;  /* network transport by name; there is "tcp" (or "Socket"), others are
                           commInvalidArgument; NULL: any */
  int splitShare;       /* commSplit: share the parent's resources; accepted */
  int trafficClass;     /* network traffic class; accepted */
  const char* commName; /* name in logs and errors */
  int collnetEnable;    /* accepted, without effect */
  int CTAPolicy;        /* GPU only; undefined: COMM_CTA_POLICY decides */
  int shrinkShare;      /* commShrink: share the parent's resources; accepted */
  int nvlsCTAs;         /* GPU only */
  int nChannelsPerNetPeer; /* sockets or queue pairs per network peer; accepted */
  int nvlinkCentricSched;  /* GPU only */
} commConfig_t;

/* clang-format off */
#define COMM_CONFIG_INITIALIZER {                                       \
  sizeof(commConfig_t),                                                 \
  0xcafebeef,                                                           \
  COMM_VERSION(COMM_MAJOR, COMM_MINOR, COMM_PATCH),                     \
  COMM_CONFIG_UNDEF_INT, /* blocking */                                 \
  COMM_CONFIG_UNDEF_INT, /* cgaClusterSize */                           \
  COMM_CONFIG_UNDEF_INT, /* minCTAs */                                  \
  COMM_CONFIG_UNDEF_INT, /* maxCTAs */                                  \
  COMM_CONFIG_UNDEF_PTR, /* netName */                                  \
  COMM_CONFIG_UNDEF_INT, /* splitShare */                               \
  COMM_CONFIG_UNDEF_INT, /* trafficClass */                             \
  COMM_CONFIG_UNDEF_PTR, /* commName */                                 \
  COMM_CONFIG_UNDEF_INT, /* collnetEnable */                            \
  COMM_CONFIG_UNDEF_INT, /* CTAPolicy */                                \
  COMM_CONFIG_UNDEF_INT, /* shrinkShare */                              \
  COMM_CONFIG_UNDEF_INT, /* nvlsCTAs */                                 \
  COMM_CONFIG_UNDEF_INT, /* nChannelsPerNetPeer */                      \
  COMM_CONFIG_UNDEF_INT  /* nvlinkCentricSched */                       \
}
/* clang-format on */

/* What commGroupSimulateEnd reports. Start from COMM_SIM_INFO_INITIALIZER. */
typedef struct commSimInfo_v22200 {
  size_t size;
  unsigned int magic;
  unsigned int version;
  float estimatedTime; /* microseconds, by the cost model */
} commSimInfo_t;

#define COMM_SIM_INFO_INITIALIZER                                                        \
  {                                                                                      \
    sizeof(commSimInfo_t), 0x74685283, COMM_VERSION(COMM_MAJOR, COMM_MINOR, COMM_PATCH), \
        COMM_UNDEF_FLOAT                                                                 \
  }

typedef enum {
  commInt8 = 0,
  commChar = 0,
  commUint8 = 1,
  commInt32 = 2,
  commInt = 2,
  commUint32 = 3,
  commInt64 = 4,
  commUint64 = 5,
  commFloat16 = 6,
  commHalf = 6,
  commFloat32 = 7,
  commFloat = 7,
  commFloat64 = 8,
  commDouble = 8,
  commBfloat16 = 9,
  commFloat8e4m3 = 10,
  commFloat8e5m2 = 11,
  commNumTypes = 12
} commDataType_t;

typedef enum {
  commSum = 0,
  commProd = 1,
  commMax = 2,
  commMin = 3,
  commAvg = 4,
  commNumOps = 5,
  /* Values from commNumOps up to commMaxRedOp belong to commRedOpCreatePreMulSum. */
  commMaxRedOp = 0x7fffffff
} commRedOp_t;

/* Extension: bitwise operators on integer types, values of commRedOp_t. Not in its list, so that a
 * ported program's switch over that is still complete. */
#ifdef __cplusplus
static const commRedOp_t commBand = static_cast<commRedOp_t>(0x7ffffff0);
static const commRedOp_t commBor = static_cast<commRedOp_t>(0x7ffffff1);
static const commRedOp_t commBxor = static_cast<commRedOp_t>(0x7ffffff2);
#else
#define commBand ((commRedOp_t)0x7ffffff0)
#define commBor ((commRedOp_t)0x7ffffff1)
#define commBxor ((commRedOp_t)0x7ffffff2)
#endif

/* Where commRedOpCreatePreMulSum's scalar lives and when it is read. */
typedef enum {
  commScalarDevice = 0,       /* device memory, read when the operation runs */
  commScalarHostImmediate = 1 /* host memory, read before the call returns */
} commScalarResidence_t;

/* ---- Library ------------------------------------------------------------------------------- */

/* The API level this library answers to (COMM_VERSION_CODE's form). version must not be NULL. */
COMM_API commResult_t commGetVersion(int* version);

/* A fixed text for a result code; never NULL. */
COMM_API const char* commGetErrorString(commResult_t result);

/* The last error of this communicator, or of the calling thread when comm is NULL, as one line that
 * names what went wrong and what to do. The text is valid until this thread's next call. Never
 * NULL. */
COMM_API const char* commGetLastError(comm_t comm);

/* ---- Communicators ------------------------------------------------------------------------- */

/* Makes an id for a new group and serves it from this process until all ranks have joined, or as
 * COMM_ID says. It waits for the first rank as long as the process lives; from then on
 * COMM_BOOTSTRAP_TIMEOUT counts. Send the 128 bytes to every rank by any private means.
 * commSystemError: no usable interface (see COMM_SOCKET_IFNAME). */
COMM_API commResult_t commGetUniqueId(commUniqueId* uniqueId);

/* Joins the group as `rank` of `nranks`; returns when all have joined. Collective over the group.
 * commInvalidArgument: rank outside 0..nranks-1, NULL comm, an id that is not one.
 * commInvalidUsage: ranks disagree about nranks, or a rank was taken twice.
 * commSystemError: nobody serves the id, or the deadline COMM_BOOTSTRAP_TIMEOUT passed. */
COMM_API commResult_t commInitRank(comm_t* comm, int nranks, commUniqueId commId, int rank);

/* As commInitRank, with options; config may be NULL. With blocking = 0 it returns commInProgress
 * and commGetAsyncError tells when the communicator is ready. */
COMM_API commResult_t commInitRankConfig(comm_t* comm, int nranks, commUniqueId commId, int rank,
                                         commConfig_t* config);

/* As commInitRankConfig, with nId ids (1 <= nId <= nranks) whose servers share the work. All ranks
 * pass the same ids in the same order. */
COMM_API commResult_t commInitRankScalable(comm_t* newcomm, int nranks, int myrank, int nId,
                                           commUniqueId* commIds, commConfig_t* config);

/* All ranks of a group in this process: comm[0..ndev-1]. Rank i belongs to GPU devlist[i] (NULL: i)
 * where this process uses CUDA and has that GPU, as commCuDevice then tells; other numbers mean
 * nothing. A GPU may be listed several times, unless COMM_MULTI_RANK_GPU=0. One thread may drive
 * all ranks; their calls then go inside one commGroupStart/End.
 * commUnhandledCudaError: a GPU of the list cannot be used. */
COMM_API commResult_t commInitAll(comm_t* comm, int ndev, const int* devlist);

/* Waits for outstanding work and keeps the handle for commDestroy; no operation may follow. With
 * blocking = 0 it returns commInProgress at once while there is any, and commGetAsyncError tells
 * when it is done. */
COMM_API commResult_t commFinalize(comm_t comm);

/* Frees the communicator and all it holds, after outstanding work is done. Inside a group it does
 * so at the outermost end, after the group's work, and that end returns its failure. */
COMM_API commResult_t commDestroy(comm_t comm);

/* Ends the communicator at once on every rank: waits in progress anywhere in the group return
 * commRemoteError that names this rank. Frees the handle. Any thread. */
COMM_API commResult_t commAbort(comm_t comm);

/* Ends what runs on this communicator and refuses new operations, here and on the other ranks; the
 * handle stays for commShrink, commSplit, commDestroy and queries. Waits until what was queued here
 * has ended. revokeFlags must be 0. */
COMM_API commResult_t commRevoke(comm_t comm, int revokeFlags);

/* Splits by colour; ranks of one colour are ordered by key, then by old rank. COMM_SPLIT_NOCOLOR
 * gives NULL, and blocks also on a communicator with blocking = 0. Collective over comm. Several
 * set-up calls (commSplit, commWindowRegister) on one communicator are carried out in the order of
 * the calls. config NULL: the parent's. */
COMM_API commResult_t commSplit(comm_t comm, int color, int key, comm_t* newcomm,
                                commConfig_t* config);

/* A communicator without the listed ranks, in the old order. Called by the ranks that stay. */
COMM_API commResult_t commShrink(comm_t comm, int* excludeRanksList, int excludeRanksCount,
                                 comm_t* newcomm, commConfig_t* config, int shrinkFlags);

/* The communicator's state: commSuccess, commInProgress, or the first failure. Never blocks. */
COMM_API commResult_t commGetAsyncError(comm_t comm, commResult_t* asyncError);

COMM_API commResult_t commCount(const comm_t comm, int* count);
COMM_API commResult_t commUserRank(const comm_t comm, int* rank);
/* The number of the communicator's GPU: that of its operations on GPU memory, before the first of
 * them the one that was current in the thread that asked for the communicator; -1: none. */
COMM_API commResult_t commCuDevice(const comm_t comm, int* device);

/* ---- Memory -------------------------------------------------------------------------------- */

/* In a thread with a current CUDA context (after cudaSetDevice): memory of that GPU, not zeroed.
 * Else host memory that ranks on the same host read and write in place, zeroed. Both begin at a
 * multiple of 4096 bytes. A size of 0 gives NULL. Free it with commMemFree, in any thread, after
 * the last operation on it has completed. commSystemError, commUnhandledCudaError: the memory
 * cannot be had. */
COMM_API commResult_t commMemAlloc(void** ptr, size_t size);
COMM_API commResult_t commMemFree(void* ptr);

/* Declares that [buff, buff + size) will be used often. Any memory is accepted, GPU memory too;
 * none is touched. */
COMM_API commResult_t commRegister(const comm_t comm, void* buff, size_t size, void** handle);
COMM_API commResult_t commDeregister(const comm_t comm, void* handle);

/* Collective registration of a window of equal size on all ranks. Blocks, or in a group lets
 * commGroupEnd do it; a window that is refused there becomes NULL. */
COMM_API commResult_t commWindowRegister(comm_t comm, void* buff, size_t size, commWindow_t* win,
                                         int winFlags);
/* NULL is no window, and is left at that. */
COMM_API commResult_t commWindowDeregister(comm_t comm, commWindow_t win);

/* ---- Operators ----------------------------------------------------------------------------- */

/* An operator that multiplies this rank's input by *scalar (of `datatype`), then sums. */
COMM_API commResult_t commRedOpCreatePreMulSum(commRedOp_t* op, void* scalar,
                                               commDataType_t datatype,
                                               commScalarResidence_t residence, comm_t comm);
COMM_API commResult_t commRedOpDestroy(commRedOp_t op, comm_t comm);

/* ---- Collectives ---------------------------------------------------------------------------
 * Counts are in elements. Every rank of the communicator makes the same call with the same count,
 * type, operator and root; a difference is commInvalidUsage and names both ranks and both calls. A
 * count of 0 moves nothing and needs no pointer, but is a call that all ranks make. Buffers may not
 * overlap except in place as stated. All ranks get the same bits. */

/* recvbuff[0..count) = op over ranks of sendbuff[0..count). In place: sendbuff == recvbuff. */
COMM_API commResult_t commAllReduce(const void* sendbuff, void* recvbuff, size_t count,
                                    commDataType_t datatype, commRedOp_t op, comm_t comm,
                                    cudaStream_t stream);

/* Rank r gets op over ranks of sendbuff[r*recvcount .. (r+1)*recvcount).
 * In place: recvbuff == sendbuff + rank * recvcount. */
COMM_API commResult_t commReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount,
                                        commDataType_t datatype, commRedOp_t op, comm_t comm,
                                        cudaStream_t stream);

/* recvbuff[r*sendcount ..) = sendbuff of rank r. In place: sendbuff == recvbuff + rank*sendcount.
 */
COMM_API commResult_t commAllGather(const void* sendbuff, void* recvbuff, size_t sendcount,
                                    commDataType_t datatype, comm_t comm, cudaStream_t stream);

/* recvbuff = root's sendbuff. sendbuff is read at the root only; in place: sendbuff == recvbuff. */
COMM_API commResult_t commBroadcast(const void* sendbuff, void* recvbuff, size_t count,
                                    commDataType_t datatype, int root, comm_t comm,
                                    cudaStream_t stream);
COMM_API commResult_t commBcast(void* buff, size_t count, commDataType_t datatype, int root,
                                comm_t comm, cudaStream_t stream);

/* As commAllReduce, with the result at root only; recvbuff may be NULL elsewhere. */
COMM_API commResult_t commReduce(const void* sendbuff, void* recvbuff, size_t count,
                                 commDataType_t datatype, commRedOp_t op, int root, comm_t comm,
                                 cudaStream_t stream);

/* Block j of sendbuff (count elements) goes to rank j; block j of recvbuff comes from rank j.
 * In place is not possible. */
COMM_API commResult_t commAlltoAll(const void* sendbuff, void* recvbuff, size_t count,
                                   commDataType_t datatype, comm_t comm, cudaStream_t stream);

/* Root's recvbuff[r*count ..) = sendbuff of rank r. In place at root: sendbuff == recvbuff +
 * root*count. */
COMM_API commResult_t commGather(const void* sendbuff, void* recvbuff, size_t count,
                                 commDataType_t datatype, int root, comm_t comm,
                                 cudaStream_t stream);

/* recvbuff of rank r = root's sendbuff[r*count ..). In place at root: recvbuff == sendbuff +
 * root*count. */
COMM_API commResult_t commScatter(const void* sendbuff, void* recvbuff, size_t count,
                                  commDataType_t datatype, int root, comm_t comm,
                                  cudaStream_t stream);

/* Point to point; the peer makes the matching call with the same count and type. Messages between
 * two ranks match in order. Several in one group progress together. A send to oneself needs its
 * receive in the same group. */
COMM_API commResult_t commSend(const void* sendbuff, size_t count, commDataType_t datatype,
                               int peer, comm_t comm, cudaStream_t stream);
COMM_API commResult_t commRecv(void* recvbuff, size_t count, commDataType_t datatype, int peer,
                               comm_t comm, cudaStream_t stream);

/* ---- Groups --------------------------------------------------------------------------------
 * Calls between Start and End of one thread are one batch: several operations of one communicator,
 * several communicators, or both, complete together without deadlock. Groups nest; the outermost
 * End does the work and returns the first failure. No call of a group may use what another one of
 * the same group produces: small ones go together, and their inputs are read before any result is
 * there. */
COMM_API commResult_t commGroupStart(void);
COMM_API commResult_t commGroupEnd(void);
/* Ends the group without running it and reports its estimated time. simInfo may be NULL. */
COMM_API commResult_t commGroupSimulateEnd(commSimInfo_t* simInfo);

/* ---- Extensions ---------------------------------------------------------------------------- */

/* Extension: this library's own version, such as "0.1.0". The text is static. */
COMM_API commResult_t commGetLibraryVersion(const char** version);

/* Extension: the value that a knob has where neither the environment nor a file sets it, for
 * programs and bindings with settings of their own. `knob` is a name such as "COMM_BUFFSIZE";
 * `value` NULL takes the default back; `origin` says in logs and errors where the value comes from
 * and may be NULL. For this process, and for communicators made later. A value that is out of the
 * knob's range is refused and changes nothing. */
COMM_API commResult_t commSetKnobDefault(const char* knob, const char* value, const char* origin);

/* Extension: all-gather with a block size per rank. recvcounts[r] elements of rank r go to
 * recvbuff + displs[r]; sendcount == recvcounts[rank]. The same table on all ranks. In place:
 * sendbuff == recvbuff + displs[rank]. */
COMM_API commResult_t commAllGatherv(const void* sendbuff, size_t sendcount, void* recvbuff,
                                     const size_t recvcounts[], const size_t displs[],
                                     commDataType_t datatype, comm_t comm, cudaStream_t stream);

/* Extension: reduce-scatter with a block size per rank; blocks are packed in rank order in
 * sendbuff. In place: recvbuff == sendbuff + sum of recvcounts before rank. */
COMM_API commResult_t commReduceScatterv(const void* sendbuff, void* recvbuff,
                                         const size_t recvcounts[], commDataType_t datatype,
                                         commRedOp_t op, comm_t comm, cudaStream_t stream);

/* Extension: all-to-all with sizes per pair; sendcounts[j] here equals recvcounts[rank] at rank j,
 * and a difference is commInvalidUsage. */
COMM_API commResult_t commAlltoAllv(const void* sendbuff, const size_t sendcounts[],
                                    const size_t sdispls[], void* recvbuff,
                                    const size_t recvcounts[], const size_t rdispls[],
                                    commDataType_t datatype, comm_t comm, cudaStream_t stream);

/* Extension: returns when every rank has called it. */
COMM_API commResult_t commBarrier(comm_t comm, cudaStream_t stream);

/* Extension: an in-order queue for asynchronous operations on host memory. Operations run on the
 * communicator's engine thread. One stream may serve several communicators. */
COMM_API commResult_t commHostStreamCreate(cudaStream_t* stream);
/* commSuccess: all done; commInProgress: not yet; else the first error of the stream. */
COMM_API commResult_t commHostStreamQuery(cudaStream_t stream);
COMM_API commResult_t commHostStreamSynchronize(cudaStream_t stream);
/* Waits for queued work, then frees the stream. */
COMM_API commResult_t commHostStreamDestroy(cudaStream_t stream);

/* Extension: joins the group that the launcher describes (COMM_RANK/COMM_NRANKS/COMM_ID, torchrun,
 * PMIx under mpirun or srun, MPICH's PMI-1, Slurm). Without any launcher: a group of one rank. */
COMM_API commResult_t commInitFromLauncher(comm_t* comm);

/* Extension: what a communicator holds now. */
typedef struct {
  size_t size; /* set by the caller to sizeof(commMemStats_t) */
  size_t hostBytes, pinnedBytes, deviceBytes;
  int channels, sockets, threads;
} commMemStats_t;
COMM_API commResult_t commGetMemStats(comm_t comm, commMemStats_t* stats);

#ifdef __cplusplus
}
#endif

#endif /* COMM_H_ */
