#include "src/device/kernels.h"

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/base/fork_mutex.h"
#include "src/device/image.h"
#include "src/device/kernels/packs.h"
#include "src/device/kernels/table.h"

namespace libcomm::cuda {
namespace {

// Blocks of kMaxThreads that are on a multiprocessor at once, as the registers of the kernels
// allow.
constexpr int kBlocksPerMultiprocessor = 2;

// The context is current in this thread, and the thread's capture mode lets the driver load, while
// this lives.
class Inside {
 public:
  Inside(const Driver& driver, CUcontext context) : driver_(driver) {
    (void)driver_.capture_mode(&mode_);
    status_ = driver_.check(driver_.context_push(context), "cuCtxPushCurrent");
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() {
    CUcontext popped = nullptr;
    if (status_) (void)driver_.context_pop(&popped);
    (void)driver_.capture_mode(&mode_);
  }
  const Status& status() const { return status_; }

 private:
  const Driver& driver_;
  int mode_ = kCaptureRelaxed;
  Status status_;
};

using Loaded = std::map<std::pair<const Driver*, CUcontext>, std::unique_ptr<const Kernels>>;

// Held while kernels are loaded, so that ranks that are threads load them once. What is loaded is
// never freed: calls at process exit find it.
ForkMutex& g_mutex = *new ForkMutex;
Loaded& g_loaded = *new Loaded;

const char* const kReduceNames[kNumDataTypes] = {
#define COMM_NAME(type, format) "libcomm_reduce_" #type,
    COMM_REDUCE_KERNELS(COMM_NAME)
#undef COMM_NAME
};

Status without_kernels() {
  return error(Code::kInvalidUsage,
               "this libcomm was built without nvcc, so it has no kernels for GPUs: build it where "
               "the CUDA toolkit is (cmake -DCOMM_CUDA=ON says what is missing), or pass host "
               "memory");
}

// What can be wrong with one array of a reduction.
Status check_array(const void* array, DataType type, const char* name, int index) {
  if (array == nullptr) return error(Code::kInvalidArgument, "{} {} is NULL", name, index);
  if (reinterpret_cast<uintptr_t>(array) % size_of(type) != 0)
    return error(Code::kInvalidArgument,
                 "{} {} at {} is not aligned to its elements: a GPU reads {} only at multiples of "
                 "{} bytes",
                 name, index, array, name_of(type), size_of(type));
  return Status::ok();
}

Status check_number(int value, int most, const char* name) {
  if (value >= 1 && value <= most) return Status::ok();
  return error(Code::kInvalidArgument, "{} {} is not in 1 to {}", name, value, most);
}

Status check(const ReduceArguments& arguments) {
  COMM_TRY(check_number(arguments.source_count, kMaxSources, "source count"));
  COMM_TRY(check_number(arguments.destination_count, kMaxDestinations, "destination count"));
  if (arguments.divisor < 1)
    return error(Code::kInvalidArgument, "divisor {} is less than 1", arguments.divisor);
  if (!is_defined(arguments.op, arguments.type))
    return error(Code::kInvalidArgument, "op {} works on integers only, but the type is {}",
                 name_of(arguments.op), name_of(arguments.type));
  for (int s = 0; s < arguments.source_count; ++s)
    COMM_TRY(check_array(arguments.sources[s], arguments.type, "source", s));
  for (int d = 0; d < arguments.destination_count; ++d)
    COMM_TRY(check_array(arguments.destinations[d], arguments.type, "destination", d));
  return Status::ok();
}

}  // namespace

Result<const Kernels*> Kernels::of(const Driver& driver, CUcontext context) {
  std::lock_guard lock(g_mutex);
  std::unique_ptr<const Kernels>& known = g_loaded[{&driver, context}];
  if (known != nullptr) return known.get();
  const Inside inside(driver, context);
  COMM_TRY(inside.status());
  std::unique_ptr<Kernels> kernels(new Kernels(driver));
  COMM_TRY(kernels->load());
  known = std::move(kernels);
  return known.get();
}

Status Kernels::load() {
  const KernelImage image = kernel_image();
  CUmodule module = nullptr;
  if (const CUresult result = driver_.module_load(&module, image.data); result != kSuccess) {
    if (image.made_by == nullptr) return without_kernels();
    return driver_.check(result, "cuModuleLoadData")
        .context(fmt::format("loading the kernels of this libcomm, made by {}: the driver must be "
                             "as new as that toolkit; update the driver, or build libcomm with an "
                             "older toolkit",
                             image.made_by));
  }
  // Asking for a function also loads it where the driver loads lazily.
  const auto look = [&](CUfunction* function, const char* name) {
    const CUresult result = driver_.module_function(function, module, name);
    if (result != kSuccess && image.made_by == nullptr) return without_kernels();
    return driver_.check(result, name);
  };
  Status status = look(&copy_, "libcomm_copy");
  for (int type = 0; type < kNumDataTypes && status; ++type)
    status = look(&reduce_[type], kReduceNames[type]);
  CUdevice device = 0;
  int multiprocessors = 0;
  if (status) status = driver_.check(driver_.context_device(&device), "cuCtxGetDevice");
  if (status)
    status = driver_.check(driver_.device_attribute(&multiprocessors, kMultiprocessors, device),
                           "cuDeviceGetAttribute");
  if (!status) {
    (void)driver_.module_unload(module);
    return status;
  }
  useful_ctas_ = std::max(1, multiprocessors * kBlocksPerMultiprocessor);
  return Status::ok();
}

Status Kernels::reduce(const ReduceArguments& arguments, int max_ctas, CUstream stream) const {
  if (arguments.count == 0) return Status::ok();
  COMM_TRY(check(arguments));
  return launch(reduce_[static_cast<size_t>(arguments.type)],
                arguments.count * size_of(arguments.type), max_ctas, stream, &arguments,
                kReduceNames[static_cast<size_t>(arguments.type)]);
}

Status Kernels::copy(const CopyArguments& arguments, int max_ctas, CUstream stream) const {
  COMM_TRY(check_number(arguments.segment_count, kMaxSegments, "segment count"));
  size_t bytes = 0;
  for (int s = 0; s < arguments.segment_count; ++s) {
    const CopySegment& segment = arguments.segments[s];
    if (segment.bytes != 0 && (segment.from == nullptr || segment.to == nullptr))
      return error(Code::kInvalidArgument, "segment {} of {} bytes has a NULL pointer", s,
                   segment.bytes);
    // A segment is dealt out in tiles of its own, so a small one still takes a block.
    bytes += segment.bytes == 0 ? 0 : std::max(segment.bytes, kMaxThreads * kPackBytes);
  }
  if (bytes == 0) return Status::ok();
  return launch(copy_, bytes, max_ctas, stream, &arguments, "libcomm_copy");
}

// Small blocks for few bytes; then full blocks that each do one tile; then, in the largest grid,
// blocks that go over the array several times.
Status Kernels::launch(CUfunction kernel, size_t bytes, int max_ctas, CUstream stream,
                       const void* arguments, const char* what) const {
  COMM_TRY(check_number(max_ctas, INT32_MAX, "the limit of CTAs"));
  constexpr size_t kLeastThreads = 64;
  const size_t packs = (bytes - 1) / kPackBytes + 1;
  const size_t threads = std::clamp(std::bit_ceil(packs), kLeastThreads, size_t{kMaxThreads});
  const size_t wanted = (packs - 1) / (threads * kPacksAtOnce) + 1;
  const size_t blocks =
      std::min({wanted, static_cast<size_t>(max_ctas), static_cast<size_t>(useful_ctas_)});
  void* parameters[] = {const_cast<void*>(arguments)};  // the driver only reads it
  return driver_.check(
      driver_.launch(kernel, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1,
                     1, 0, stream, parameters, nullptr),
      what);
}

}  // namespace libcomm::cuda
