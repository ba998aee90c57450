// What nccl.h of NCCL 2.28.9 is, as facts. This file is compiled with bindings/nccl/nccl.h, and
// also with NVIDIA's header where that is installed: both are equal to the facts, so they are
// equal.
#include <nccl.h>

#include <climits>
#include <cstddef>
#include <type_traits>

namespace {

using Comm = ncclComm_t;
using Result = ncclResult_t;
using Type = ncclDataType_t;
using Op = ncclRedOp_t;
using Stream = cudaStream_t;

static_assert(std::is_same_v<Comm, struct ncclComm*>);
static_assert(std::is_same_v<ncclWindow_t, struct ncclWindow_vidmem*>);
static_assert(std::is_same_v<Stream, struct CUstream_st*>);

static_assert(NCCL_MAJOR == 2 && NCCL_MINOR == 28 && NCCL_PATCH == 9 && sizeof NCCL_SUFFIX == 1);
static_assert(NCCL_VERSION_CODE == 22809 && NCCL_VERSION(2, 28, 9) == 22809);
static_assert(NCCL_VERSION(2, 8, 4) == 2804 && NCCL_VERSION(2, 9, 6) == 20906);

static_assert(sizeof(Result) == 4 && sizeof(Type) == 4 && sizeof(Op) == 4);
static_assert(sizeof(ncclScalarResidence_t) == 4);
static_assert(ncclSuccess == 0 && ncclUnhandledCudaError == 1 && ncclSystemError == 2 &&
              ncclInternalError == 3 && ncclInvalidArgument == 4 && ncclInvalidUsage == 5 &&
              ncclRemoteError == 6 && ncclInProgress == 7 && ncclNumResults == 8);
static_assert(ncclInt8 == 0 && ncclUint8 == 1 && ncclInt32 == 2 && ncclUint32 == 3 &&
              ncclInt64 == 4 && ncclUint64 == 5 && ncclFloat16 == 6 && ncclFloat32 == 7 &&
              ncclFloat64 == 8 && ncclBfloat16 == 9 && ncclFloat8e4m3 == 10 &&
              ncclFloat8e5m2 == 11 && ncclNumTypes == 12);
static_assert(ncclChar == 0 && ncclInt == 2 && ncclHalf == 6 && ncclFloat == 7 && ncclDouble == 8);
static_assert(ncclSum == 0 && ncclProd == 1 && ncclMax == 2 && ncclMin == 3 && ncclAvg == 4 &&
              ncclNumOps == 5 && ncclMaxRedOp == INT_MAX);
static_assert(ncclScalarDevice == 0 && ncclScalarHostImmediate == 1);

static_assert(NCCL_COMM_NULL == nullptr && NCCL_CONFIG_UNDEF_PTR == nullptr);
static_assert(NCCL_CONFIG_UNDEF_INT == INT_MIN && NCCL_UNDEF_FLOAT == -1.0f);
static_assert(NCCL_SPLIT_NOCOLOR == -1);
static_assert(NCCL_WIN_DEFAULT == 0 && NCCL_WIN_COLL_SYMMETRIC == 1 &&
              NCCL_WIN_REQUIRED_ALIGNMENT == 4096);
static_assert(NCCL_CTA_POLICY_DEFAULT == 0 && NCCL_CTA_POLICY_EFFICIENCY == 1 &&
              NCCL_CTA_POLICY_ZERO == 2);
static_assert(NCCL_SHRINK_DEFAULT == 0 && NCCL_SHRINK_ABORT == 1 && NCCL_REVOKE_DEFAULT == 0);

static_assert(NCCL_UNIQUE_ID_BYTES == 128 && sizeof(ncclUniqueId) == 128 &&
              alignof(ncclUniqueId) == 1 && sizeof(ncclUniqueId::internal) == 128);

using Config = ncclConfig_t;
static_assert(std::is_same_v<Config, struct ncclConfig_v22800>);
static_assert(sizeof(Config) == 80 && alignof(Config) == 8);
static_assert(offsetof(Config, size) == 0 && offsetof(Config, magic) == 8 &&
              offsetof(Config, version) == 12 && offsetof(Config, blocking) == 16 &&
              offsetof(Config, cgaClusterSize) == 20 && offsetof(Config, minCTAs) == 24 &&
              offsetof(Config, maxCTAs) == 28 && offsetof(Config, netName) == 32 &&
              offsetof(Config, splitShare) == 40 && offsetof(Config, trafficClass) == 44 &&
              offsetof(Config, commName) == 48 && offsetof(Config, collnetEnable) == 56 &&
              offsetof(Config, CTAPolicy) == 60 && offsetof(Config, shrinkShare) == 64 &&
              offsetof(Config, nvlsCTAs) == 68 && offsetof(Config, nChannelsPerNetPeer) == 72 &&
              offsetof(Config, nvlinkCentricSched) == 76);
constexpr Config kConfig = NCCL_CONFIG_INITIALIZER;
static_assert(kConfig.size == 80 && kConfig.magic == 0xcafebeef && kConfig.version == 22809);
static_assert(kConfig.blocking == INT_MIN && kConfig.cgaClusterSize == INT_MIN &&
              kConfig.minCTAs == INT_MIN && kConfig.maxCTAs == INT_MIN &&
              kConfig.netName == nullptr && kConfig.splitShare == INT_MIN &&
              kConfig.trafficClass == INT_MIN && kConfig.commName == nullptr &&
              kConfig.collnetEnable == INT_MIN && kConfig.CTAPolicy == INT_MIN &&
              kConfig.shrinkShare == INT_MIN && kConfig.nvlsCTAs == INT_MIN &&
              kConfig.nChannelsPerNetPeer == INT_MIN && kConfig.nvlinkCentricSched == INT_MIN);

using Sim = ncclSimInfo_t;
static_assert(std::is_same_v<Sim, struct ncclSimInfo_v22200>);
static_assert(sizeof(Sim) == 24 && offsetof(Sim, magic) == 8 && offsetof(Sim, version) == 12 &&
              offsetof(Sim, estimatedTime) == 16 &&
              std::is_same_v<decltype(Sim::estimatedTime), float>);
constexpr Sim kSim = NCCL_SIM_INFO_INITIALIZER;
static_assert(kSim.size == 24 && kSim.magic == 0x74685283 && kSim.version == 22809 &&
              kSim.estimatedTime == -1.0f);

// Both names of a call have this type.
#define IS(call, ...)                                                                     \
  static_assert(std::is_same_v<decltype(&nccl##call), std::add_pointer_t<__VA_ARGS__>> && \
                std::is_same_v<decltype(&pnccl##call), std::add_pointer_t<__VA_ARGS__>>)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // NVIDIA's ncclResetDebugInit is
IS(ResetDebugInit, void());
#pragma GCC diagnostic pop
IS(GetVersion, Result(int*));
IS(GetErrorString, const char*(Result));
IS(GetLastError, const char*(Comm));
IS(GetUniqueId, Result(ncclUniqueId*));
IS(CommInitRank, Result(Comm*, int, ncclUniqueId, int));
IS(CommInitRankConfig, Result(Comm*, int, ncclUniqueId, int, Config*));
IS(CommInitRankScalable, Result(Comm*, int, int, int, ncclUniqueId*, Config*));
IS(CommInitAll, Result(Comm*, int, const int*));
IS(CommSplit, Result(Comm, int, int, Comm*, Config*));
IS(CommShrink, Result(Comm, int*, int, Comm*, Config*, int));
IS(CommFinalize, Result(Comm));
IS(CommDestroy, Result(Comm));
IS(CommAbort, Result(Comm));
IS(CommRevoke, Result(Comm, int));
IS(CommGetAsyncError, Result(Comm, Result*));
IS(CommCount, Result(Comm, int*));
IS(CommUserRank, Result(Comm, int*));
IS(CommCuDevice, Result(Comm, int*));
IS(MemAlloc, Result(void**, size_t));
IS(MemFree, Result(void*));
IS(CommRegister, Result(Comm, void*, size_t, void**));
IS(CommDeregister, Result(Comm, void*));
IS(CommWindowRegister, Result(Comm, void*, size_t, ncclWindow_t*, int));
IS(CommWindowDeregister, Result(Comm, ncclWindow_t));
IS(RedOpCreatePreMulSum, Result(Op*, void*, Type, ncclScalarResidence_t, Comm));
IS(RedOpDestroy, Result(Op, Comm));
IS(AllReduce, Result(const void*, void*, size_t, Type, Op, Comm, Stream));
IS(ReduceScatter, Result(const void*, void*, size_t, Type, Op, Comm, Stream));
IS(Reduce, Result(const void*, void*, size_t, Type, Op, int, Comm, Stream));
IS(AllGather, Result(const void*, void*, size_t, Type, Comm, Stream));
IS(AlltoAll, Result(const void*, void*, size_t, Type, Comm, Stream));
IS(Broadcast, Result(const void*, void*, size_t, Type, int, Comm, Stream));
IS(Bcast, Result(void*, size_t, Type, int, Comm, Stream));
IS(Gather, Result(const void*, void*, size_t, Type, int, Comm, Stream));
IS(Scatter, Result(const void*, void*, size_t, Type, int, Comm, Stream));
IS(Send, Result(const void*, size_t, Type, int, Comm, Stream));
IS(Recv, Result(void*, size_t, Type, int, Comm, Stream));
IS(GroupStart, Result());
IS(GroupEnd, Result());
IS(GroupSimulateEnd, Result(Sim*));

}  // namespace
