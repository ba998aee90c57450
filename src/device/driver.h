// Driver: the CUDA driver of this process, as a table of its calls.
//
// This is the thin interface between the library and a GPU: nothing else in the library calls CUDA.
// It has two implementations: NVIDIA's libcuda.so.1, and a double of it for machines without a GPU
// (tests/doubles/cuda: streams are threads, device memory is a memfd, kernels are the same step
// code compiled for the host). Kernels, executors and transports above it are the same with both.
//
// The declarations are written down by hand, so that no CUDA header is needed to build; names and
// values are part of the driver's ABI (CUDA Driver API reference).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "src/base/status.h"

namespace libcomm::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = void*;
using CUstream = void*;
using CUevent = void*;
using CUmodule = void*;
using CUfunction = void*;
using CUgraph = void*;
using CUuserObject = void*;
using CUhostFn = void (*)(void*);
struct CUipcMemHandle {
  char reserved[64];
};

// Of cuMemCreate's memory; a handle is a number, not a pointer.
using CUmemHandle = unsigned long long;
struct CUmemLocation {
  int type, id;
};
struct CUmemAllocationProp {
  int type, handle_types;
  CUmemLocation location;
  void* windows_only;
  unsigned char compression, gpu_direct_rdma;
  unsigned short usage;
  unsigned char reserved[4];
};
struct CUmemFabricHandle {
  unsigned char data[64];
};
struct CUmemAccessDesc {
  CUmemLocation location;
  int flags;
};

// CUresult
inline constexpr CUresult kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3,
                          kDeinitialized = 4, kNoDevice = 100, kInvalidContext = 201,
                          kPeerAlreadyEnabled = 704, kPeerUnsupported = 217, kInvalidHandle = 400,
                          kNotReady = 600, kIllegalAddress = 700, kContextIsDestroyed = 709,
                          kLaunchFailed = 719, kNotPermitted = 800, kNotSupported = 801,
                          kCaptureUnsupported = 900, kCaptureInvalidated = 901,
                          kCaptureIsolation = 905;
// CUpointer_attribute
inline constexpr int kAttributeContext = 1, kAttributeMemoryType = 2, kAttributeSyncMemops = 6,
                     kAttributeBufferId = 7, kAttributeIsManaged = 8, kAttributeOrdinal = 9,
                     kAttributeRangeStart = 11, kAttributeRangeSize = 12,
                     kAttributeHandleTypes = 14;
// CUmemorytype
inline constexpr unsigned kTypeHost = 1, kTypeDevice = 2;
// CUdevice_attribute
inline constexpr int kMultiprocessors = 16, kVirtualMemory = 102, kDescriptorHandles = 103,
                     kGpuDirectOfVirtualMemory = 110, kWritesOrdering = 118, kFabricHandles = 128;
// CUdevice_P2PAttribute
inline constexpr int kP2pNativeAtomics = 3;
// CUmemLocationType, CUmemAllocationType, CUmemAllocationHandleType,
// CUmemAllocationGranularity_flags, CUmemAccess_flags
inline constexpr int kOnDevice = 1, kPinnedChunk = 1, kDescriptorHandle = 1, kFabricHandle = 8,
                     kLeastGranularity = 0, kReadWrite = 3;
// cuMemHostAlloc, cuMemHostRegister
inline constexpr unsigned kPortable = 1, kDeviceMap = 2;
// CUstreamWaitValue_flags
inline constexpr unsigned kWaitGreaterOrEqual = 0, kWaitEqual = 1;
// CUipcMem_flags
inline constexpr unsigned kLazyPeerAccess = 1;
// CUstream_flags, CUevent_flags
inline constexpr unsigned kStreamNonBlocking = 1, kEventNoTiming = 2;
// CUstreamCaptureStatus
inline constexpr int kNotCapturing = 0, kCapturing = 1, kCaptureIsInvalid = 2;
// CUstreamCaptureMode
inline constexpr int kCaptureGlobal = 0, kCaptureThreadLocal = 1, kCaptureRelaxed = 2;
// CUuserObject_flags, CUuserObjectRetain_flags
inline constexpr unsigned kNoDestructorSync = 1, kMoveReference = 1;
// The handles of the default streams: 0 is the legacy one.
inline CUstream const kLegacyStream = reinterpret_cast<CUstream>(1);
inline CUstream const kPerThreadStream = reinterpret_cast<CUstream>(2);

inline CUdeviceptr number_of(const void* address) { return reinterpret_cast<uintptr_t>(address); }
inline void* pointer_of(CUdeviceptr number) { return reinterpret_cast<void*>(number); }

struct Driver {
#define CUDA_CALL(member, symbol, ...) CUresult (*member)(__VA_ARGS__) = nullptr;
#include "src/device/driver_calls.def"
#undef CUDA_CALL

  // The driver that the program has loaded and initialised; null while there is none. Never loads
  // or initialises it. Any thread; a table that was returned stays valid for ever. Costs some ten
  // nanoseconds while no new library has been loaded into the process.
  static const Driver* find();
  // What find() has found so far.
  static const Driver* found() { return found_.load(std::memory_order_acquire); }

  // OK for kSuccess; else kUnhandledCuda with `what`, the driver's name of the error and its text.
  Status check(CUresult result, const char* what) const;

 private:
  static std::atomic<const Driver*> found_;
};

}  // namespace libcomm::cuda
