// The kernels for GPUs: the steps, each thread of the launch doing its own.
//
// ptxas -v of CUDA 13.0 shows no spills for sm_90 and 120, for sm_75 and 80 4 bytes in one of them,
// and for sm_100 at most 16 bytes, in five.
#include "src/device/kernels/copy_step.h"
#include "src/device/kernels/execute_step.h"
#include "src/device/kernels/reduce_step.h"
#include "src/device/kernels/table.h"

namespace libcomm::cuda {
namespace {

__device__ __forceinline__ Place here() { return {blockIdx.x, gridDim.x, threadIdx.x, blockDim.x}; }

// Arguments that are in host memory when the kernel begins, read once by each block.
template <typename Arguments>
__device__ __forceinline__ const Arguments& fetch(const Arguments* where) {
  constexpr unsigned kWords = sizeof(Arguments) / sizeof(uint64_t);
  static_assert(sizeof(Arguments) % sizeof(uint64_t) == 0);
  __shared__ uint64_t words[kWords];
  const volatile uint64_t* from = reinterpret_cast<const volatile uint64_t*>(where);
  for (unsigned i = threadIdx.x; i < kWords; i += blockDim.x) words[i] = from[i];
  __syncthreads();
  return *reinterpret_cast<const Arguments*>(words);
}

// The same of copies: only the segments that there are. The first thread reads how many for all,
// since the host may set that to zero meanwhile.
__device__ __forceinline__ const CopyArguments& fetch_copies(const CopyArguments* where) {
  constexpr unsigned kHead = offsetof(CopyArguments, segments) / sizeof(uint64_t);
  constexpr unsigned kEach = sizeof(CopySegment) / sizeof(uint64_t);
  static_assert(kHead == 1 && offsetof(CopyArguments, segment_count) == 0);
  __shared__ uint64_t words[sizeof(CopyArguments) / sizeof(uint64_t)];
  const volatile uint64_t* from = reinterpret_cast<const volatile uint64_t*>(where);
  if (threadIdx.x == 0) words[0] = from[0];
  __syncthreads();
  const CopyArguments& arguments = *reinterpret_cast<const CopyArguments*>(words);
  const unsigned end = kHead + static_cast<unsigned>(arguments.segment_count) * kEach;
  for (unsigned i = kHead + threadIdx.x; i < end; i += blockDim.x) words[i] = from[i];
  __syncthreads();
  return arguments;
}

}  // namespace
}  // namespace libcomm::cuda

#define COMM_REDUCE_KERNEL(type, format)                                                \
  extern "C" __global__ void __launch_bounds__(libcomm::cuda::kMaxThreads)              \
      libcomm_reduce_##type(const __grid_constant__ libcomm::cuda::ReduceArguments a) { \
    using namespace libcomm::cuda;                                                      \
    Reduction<format>(a).run(here());                                                   \
  }
COMM_REDUCE_KERNELS(COMM_REDUCE_KERNEL)

#define COMM_LATE_REDUCE_KERNEL(type, format)                               \
  extern "C" __global__ void __launch_bounds__(libcomm::cuda::kMaxThreads)  \
      libcomm_late_reduce_##type(const libcomm::cuda::ReduceArguments* a) { \
    using namespace libcomm::cuda;                                          \
    const ReduceArguments& fetched = fetch(a);                              \
    if (fetched.count > 0) Reduction<format>(fetched).run(here());          \
  }
COMM_REDUCE_KERNELS(COMM_LATE_REDUCE_KERNEL)

#define COMM_EXECUTE_KERNEL(type, format)                                                 \
  extern "C" __global__ void __launch_bounds__(libcomm::cuda::kMaxThreads)                \
      libcomm_execute_##type(const __grid_constant__ libcomm::cuda::ExecuteArguments a) { \
    using namespace libcomm::cuda;                                                        \
    __shared__ alignas(16) unsigned char memory[sizeof(LaneMemory)];                      \
    Team team;                                                                            \
    LaneRun<format>(a, reinterpret_cast<LaneMemory*>(memory), &team, here()).run();       \
  }
COMM_REDUCE_KERNELS(COMM_EXECUTE_KERNEL)

extern "C" __global__ void __launch_bounds__(libcomm::cuda::kMaxThreads)
    libcomm_copy(const __grid_constant__ libcomm::cuda::CopyArguments a) {
  libcomm::cuda::copy_step(a, libcomm::cuda::here());
}

extern "C" __global__ void __launch_bounds__(libcomm::cuda::kMaxThreads)
    libcomm_late_copy(const libcomm::cuda::CopyArguments* a) {
  libcomm::cuda::copy_step(libcomm::cuda::fetch_copies(a), libcomm::cuda::here());
}
