#include "src/device/kernels.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>

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

using Loaded = std::map<std::pair<const Driver*, CUcontext>, std::weak_ptr<const Kernels>>;

// Held while kernels are loaded, so that ranks that are threads load them once: no ForkMutex, since
// the driver has mutexes of its own. Never destroyed: calls at process exit find them.
std::mutex& g_mutex = *new std::mutex;
Loaded& g_loaded = *new Loaded;

const char* const kReduceNames[kNumDataTypes] = {
#define COMM_NAME(type, format) "libcomm_reduce_" #type,
    COMM_REDUCE_KERNELS(COMM_NAME)
#undef COMM_NAME
};

const char* const kLateReduceNames[kNumDataTypes] = {
#define COMM_NAME(type, format) "libcomm_late_reduce_" #type,
    COMM_REDUCE_KERNELS(COMM_NAME)
#undef COMM_NAME
};

const char* const kExecuteNames[kNumDataTypes] = {
#define COMM_NAME(type, format) "libcomm_execute_" #type,
    COMM_REDUCE_KERNELS(COMM_NAME)
#undef COMM_NAME
};

Status without_kernels() {
  return error(Code::kInvalidUsage,
               "this libcomm was built without nvcc, so it has no kernels for GPUs: build it where "
               "the CUDA toolkit is (cmake -DCOMM_CUDA=ON says what is missing), or pass host "
               "memory");
}

// Whether the driver says of the image that it does not understand it: CUDA_ERROR_INVALID_IMAGE,
// NO_BINARY_FOR_GPU, INVALID_PTX, JIT_COMPILER_NOT_FOUND, UNSUPPORTED_PTX_VERSION.
bool is_too_old(CUresult result) {
  constexpr CUresult kOfImages[] = {200, 209, 218, 221, 222};
  return std::find(std::begin(kOfImages), std::end(kOfImages), result) != std::end(kOfImages);
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

size_t packs_of(size_t bytes) { return (bytes + kPackBytes - 1) / kPackBytes; }

// Small blocks for few bytes: a thread for each pack, as far as a block goes.
size_t threads_for(size_t bytes) {
  constexpr size_t kLeast = 64;
  return std::clamp(std::bit_ceil(packs_of(bytes)), kLeast, size_t{kMaxThreads});
}

// What blocks of that size do at once.
size_t tiles_of(size_t bytes, size_t threads) {
  const size_t tile = threads * kPacksAtOnce;
  return (packs_of(bytes) + tile - 1) / tile;
}

}  // namespace

Result<std::shared_ptr<const Kernels>> Kernels::of(const Driver& driver, CUcontext context) {
  std::lock_guard lock(g_mutex);
  std::erase_if(g_loaded, [](const auto& each) { return each.second.expired(); });
  const std::pair key(&driver, context);
  if (const auto known = g_loaded.find(key); known != g_loaded.end())
    if (std::shared_ptr<const Kernels> held = known->second.lock()) return held;
  const std::shared_ptr<Kernels> kernels(new Kernels(driver, context));
  COMM_TRY(kernels->load());
  g_loaded[key] = kernels;
  return std::shared_ptr<const Kernels>(kernels);
}

Kernels::~Kernels() {
  if (module_ == nullptr) return;
  const Inside inside(driver_, context_);
  // A context that is gone has taken its modules along.
  if (inside.status()) (void)driver_.module_unload(module_);
}

Status Kernels::load() {
  const Inside inside(driver_, context_);
  COMM_TRY(inside.status());
  const KernelImage image = kernel_image();
  if (const CUresult result = driver_.module_load(&module_, image.data); result != kSuccess) {
    module_ = nullptr;
    if (image.made_by == nullptr) return without_kernels();
    return driver_.check(result, "cuModuleLoadData")
        .context(fmt::format("loading the kernels of this libcomm, made by {}{}", image.made_by,
                             is_too_old(result)
                                 ? ": the driver is older than that toolkit; update the driver, or "
                                   "build libcomm with a toolkit of the driver's version"
                                 : ""));
  }
  // Asking for a function also loads it where the driver loads lazily.
  const auto look = [&](CUfunction* function, const char* name) {
    const CUresult result = driver_.module_function(function, module_, name);
    if (result != kSuccess && image.made_by == nullptr) return without_kernels();
    return driver_.check(result, name);
  };
  COMM_TRY(look(&copy_, "libcomm_copy"));
  COMM_TRY(look(&late_copy_, "libcomm_late_copy"));
  for (int type = 0; type < kNumDataTypes; ++type) {
    COMM_TRY(look(&reduce_[type], kReduceNames[type]));
    COMM_TRY(look(&late_reduce_[type], kLateReduceNames[type]));
    COMM_TRY(look(&execute_[type], kExecuteNames[type]));
  }
  CUdevice device = 0;
  int multiprocessors = 0;
  COMM_TRY(driver_.check(driver_.context_device(&device), "cuCtxGetDevice"));
  COMM_TRY(driver_.check(driver_.device_attribute(&multiprocessors, kMultiprocessors, device),
                         "cuDeviceGetAttribute"));
  useful_ctas_ = std::max(1, multiprocessors * kBlocksPerMultiprocessor);
  return Status::ok();
}

Status Kernels::reduce(const ReduceArguments& arguments, int max_ctas, CUstream stream) const {
  if (arguments.count == 0) return Status::ok();
  COMM_TRY(check(arguments));
  const auto type = static_cast<size_t>(arguments.type);
  const size_t bytes = arguments.count * size_of(arguments.type);
  const size_t threads = threads_for(bytes);
  return launch(reduce_[type], tiles_of(bytes, threads), threads, max_ctas, stream, &arguments,
                kReduceNames[type]);
}

Status Kernels::copy(const CopyArguments& arguments, int max_ctas, CUstream stream) const {
  COMM_TRY(check_number(arguments.segment_count, kMaxSegments, "segment count"));
  size_t largest = 0;
  for (int s = 0; s < arguments.segment_count; ++s) {
    const CopySegment& segment = arguments.segments[s];
    if (segment.bytes != 0 && (segment.from == nullptr || segment.to == nullptr))
      return error(Code::kInvalidArgument, "segment {} of {} bytes has a NULL pointer", s,
                   segment.bytes);
    largest = std::max(largest, segment.bytes);
  }
  if (largest == 0) return Status::ok();
  const size_t threads = threads_for(largest);
  size_t tiles = 0;
  for (int s = 0; s < arguments.segment_count; ++s)
    tiles += tiles_of(arguments.segments[s].bytes, threads);
  return launch(copy_, tiles, threads, max_ctas, stream, &arguments, "libcomm_copy");
}

Status Kernels::reduce_later(DataType type, size_t bytes, const ReduceArguments* where,
                             int max_ctas, CUstream stream) const {
  if (bytes == 0) return Status::ok();
  const auto index = static_cast<size_t>(type);
  const size_t threads = threads_for(bytes);
  return launch(late_reduce_[index], tiles_of(bytes, threads), threads, max_ctas, stream, &where,
                kLateReduceNames[index]);
}

Status Kernels::copy_later(int segments, size_t bytes, const CopyArguments* where, int max_ctas,
                           CUstream stream) const {
  if (segments == 0 || bytes == 0) return Status::ok();
  const size_t threads = threads_for(bytes);
  return launch(late_copy_, static_cast<size_t>(segments) * tiles_of(bytes, threads), threads,
                max_ctas, stream, &where, "libcomm_late_copy");
}

Status Kernels::execute(const ExecuteArguments& arguments, CUstream stream) const {
  COMM_TRY(check_number(static_cast<int>(arguments.lanes), kMostExecuteLanes, "lanes"));
  COMM_TRY(check_number(arguments.divisor, INT32_MAX, "divisor"));
  if (!is_defined(arguments.op, arguments.type))
    return error(Code::kInvalidArgument, "op {} works on integers only, but the type is {}",
                 name_of(arguments.op), name_of(arguments.type));
  const auto index = static_cast<size_t>(arguments.type);
  const size_t threads = threads_for(arguments.window);
  void* parameters[] = {const_cast<ExecuteArguments*>(&arguments)};  // the driver only reads it
  return driver_.check(
      driver_.launch(execute_[index], arguments.lanes, 1, 1, static_cast<unsigned>(threads), 1, 1,
                     0, stream, parameters, nullptr),
      kExecuteNames[index]);
}

// A block for each tile; in the largest grid, blocks that do several.
Status Kernels::launch(CUfunction kernel, size_t tiles, size_t threads, int max_ctas,
                       CUstream stream, const void* arguments, const char* what) const {
  COMM_TRY(check_number(max_ctas, INT32_MAX, "the limit of CTAs"));
  const size_t blocks =
      std::min({tiles, static_cast<size_t>(max_ctas), static_cast<size_t>(useful_ctas_)});
  void* parameters[] = {const_cast<void*>(arguments)};  // the driver only reads it
  return driver_.check(
      driver_.launch(kernel, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1,
                     1, 0, stream, parameters, nullptr),
      what);
}

}  // namespace libcomm::cuda
