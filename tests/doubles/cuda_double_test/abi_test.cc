// What the library declares of the driver by hand, against the toolkit's own header.
#define __CUDA_API_VERSION_INTERNAL  // declares all versions of each call
#include <cuda.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <type_traits>

#include "tests/doubles/cuda/application.h"

namespace {

namespace ours = libcomm::cuda;

// Handles and enumerations as the registers of a call see them: pointers are alike, and numbers of
// one size and sign.
template <typename T, bool = std::is_enum_v<T>>
struct Seen {
  using type = T;
};
template <typename T>
struct Seen<T, true> {
  using type = int;
};
template <typename T>
struct Passed {
  using type = typename Seen<T>::type;
};
template <typename T>
struct Passed<T*> {
  using type = void*;
};
// The one structure that is passed as a value.
template <>
struct Passed<CUipcMemHandle> {
  using type = ours::CUipcMemHandle;
};
static_assert(sizeof(CUipcMemHandle) == sizeof(ours::CUipcMemHandle));
static_assert(alignof(CUipcMemHandle) == alignof(ours::CUipcMemHandle));

template <typename Function>
struct Call;
template <typename R, typename... A>
struct Call<R (*)(A...)> {
  using type = typename Passed<R>::type (*)(typename Passed<A>::type...);
};
template <typename Ours, typename Theirs>
constexpr bool alike = std::is_same_v<typename Call<Ours>::type, typename Call<Theirs>::type>;

#define CUDA_CALL(member, symbol, ...)                                      \
  static_assert(alike<decltype(ours::Driver::member), decltype(&::symbol)>, \
                #symbol " has other parameters");
#include "src/device/driver_calls.def"
#undef CUDA_CALL
#define CUDA_CALL(member, symbol, ...)                                           \
  static_assert(alike<decltype(ours::Application::member), decltype(&::symbol)>, \
                #symbol " has other parameters");
#include "tests/doubles/cuda/application_calls.def"
#undef CUDA_CALL

static_assert(ours::kSuccess == CUDA_SUCCESS);
static_assert(ours::kInvalidValue == CUDA_ERROR_INVALID_VALUE);
static_assert(ours::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(ours::kNotInitialized == CUDA_ERROR_NOT_INITIALIZED);
static_assert(ours::kDeinitialized == CUDA_ERROR_DEINITIALIZED);
static_assert(ours::kNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(ours::kInvalidDevice == CUDA_ERROR_INVALID_DEVICE);
static_assert(ours::kInvalidContext == CUDA_ERROR_INVALID_CONTEXT);
static_assert(ours::kMapFailed == CUDA_ERROR_MAP_FAILED);
static_assert(ours::kPeerUnsupported == CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
static_assert(ours::kInvalidHandle == CUDA_ERROR_INVALID_HANDLE);
static_assert(ours::kIllegalState == CUDA_ERROR_ILLEGAL_STATE);
static_assert(ours::kNotFound == CUDA_ERROR_NOT_FOUND);
static_assert(ours::kNotReady == CUDA_ERROR_NOT_READY);
static_assert(ours::kIllegalAddress == CUDA_ERROR_ILLEGAL_ADDRESS);
static_assert(ours::kPeerAlreadyEnabled == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
static_assert(ours::kContextIsDestroyed == CUDA_ERROR_CONTEXT_IS_DESTROYED);
static_assert(ours::kAlreadyRegistered == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
static_assert(ours::kNotRegistered == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
static_assert(ours::kLaunchFailed == CUDA_ERROR_LAUNCH_FAILED);
static_assert(ours::kNotSupported == CUDA_ERROR_NOT_SUPPORTED);
static_assert(ours::kCaptureUnsupported == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
static_assert(ours::kCaptureInvalidated == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
static_assert(ours::kCaptureMerge == CUDA_ERROR_STREAM_CAPTURE_MERGE);
static_assert(ours::kCaptureUnmatched == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
static_assert(ours::kCaptureUnjoined == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
static_assert(ours::kCaptureIsolation == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
static_assert(ours::kCaptureImplicit == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
static_assert(ours::kCapturedEvent == CUDA_ERROR_CAPTURED_EVENT);
static_assert(ours::kCaptureWrongThread == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);

static_assert(ours::kAttributeContext == CU_POINTER_ATTRIBUTE_CONTEXT);
static_assert(ours::kAttributeMemoryType == CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
static_assert(ours::kAttributeSyncMemops == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS);
static_assert(ours::kAttributeIsManaged == CU_POINTER_ATTRIBUTE_IS_MANAGED);
static_assert(ours::kAttributeOrdinal == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(ours::kAttributeRangeStart == CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
static_assert(ours::kAttributeRangeSize == CU_POINTER_ATTRIBUTE_RANGE_SIZE);
static_assert(ours::kAttributeHandleTypes == CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES);
static_assert(ours::kTypeHost == CU_MEMORYTYPE_HOST);
static_assert(ours::kTypeDevice == CU_MEMORYTYPE_DEVICE);
static_assert(ours::kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(ours::kVirtualMemory == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
static_assert(ours::kDescriptorHandles ==
              CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
static_assert(ours::kGpuDirectOfVirtualMemory ==
              CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED);
static_assert(ours::kOnDevice == CU_MEM_LOCATION_TYPE_DEVICE);
static_assert(ours::kPinnedChunk == CU_MEM_ALLOCATION_TYPE_PINNED);
static_assert(ours::kDescriptorHandle == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
static_assert(ours::kNotPermitted == CUDA_ERROR_NOT_PERMITTED);
#if CUDA_VERSION >= 12030
static_assert(ours::kFabricHandle == CU_MEM_HANDLE_TYPE_FABRIC);
static_assert(ours::kFabricHandles == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED);
static_assert(sizeof(ours::CUmemFabricHandle) == sizeof(CUmemFabricHandle));
#endif
static_assert(ours::kLeastGranularity == CU_MEM_ALLOC_GRANULARITY_MINIMUM);
static_assert(ours::kReadWrite == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
static_assert(sizeof(ours::CUmemAllocationProp) == sizeof(CUmemAllocationProp));
static_assert(offsetof(ours::CUmemAllocationProp, handle_types) ==
              offsetof(CUmemAllocationProp, requestedHandleTypes));
static_assert(offsetof(ours::CUmemAllocationProp, location) ==
              offsetof(CUmemAllocationProp, location));
static_assert(offsetof(ours::CUmemAllocationProp, gpu_direct_rdma) ==
              offsetof(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable));
static_assert(sizeof(ours::CUmemAccessDesc) == sizeof(CUmemAccessDesc));
static_assert(offsetof(ours::CUmemAccessDesc, flags) == offsetof(CUmemAccessDesc, flags));
static_assert(sizeof(ours::CUmemLocation) == sizeof(CUmemLocation));
static_assert(sizeof(ours::CUmemHandle) == sizeof(CUmemGenericAllocationHandle));
static_assert(ours::kWritesOrdering == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING);
static_assert(ours::kPortable == CU_MEMHOSTALLOC_PORTABLE);
static_assert(ours::kPortable == CU_MEMHOSTREGISTER_PORTABLE);
static_assert(ours::kDeviceMap == CU_MEMHOSTALLOC_DEVICEMAP);
static_assert(ours::kDeviceMap == CU_MEMHOSTREGISTER_DEVICEMAP);
static_assert(ours::kWaitGreaterOrEqual == CU_STREAM_WAIT_VALUE_GEQ);
static_assert(ours::kWaitEqual == CU_STREAM_WAIT_VALUE_EQ);
static_assert(ours::kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(ours::kEventNoTiming == CU_EVENT_DISABLE_TIMING);
static_assert(ours::kNotCapturing == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(ours::kCapturing == CU_STREAM_CAPTURE_STATUS_ACTIVE);
static_assert(ours::kCaptureIsInvalid == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
static_assert(ours::kCaptureGlobal == CU_STREAM_CAPTURE_MODE_GLOBAL);
static_assert(ours::kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(ours::kCaptureRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(ours::kNoDestructorSync == CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
static_assert(ours::kMoveReference == CU_GRAPH_USER_OBJECT_MOVE);

TEST(DriverAbi, TheDefaultStreamsHaveTheHandlesOfTheToolkit) {
  EXPECT_EQ(ours::kLegacyStream, CU_STREAM_LEGACY);
  EXPECT_EQ(ours::kPerThreadStream, CU_STREAM_PER_THREAD);
}

}  // namespace
