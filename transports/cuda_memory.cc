#include "transports/cuda_memory.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <mutex>

#include "src/device/memory.h"

namespace libcomm {
namespace {

// Of cuda::kWritesOrdering: 0 is none, 100 is "for the GPU itself".
constexpr int kOrderedForOwner = 100;
constexpr int kDmabufHandle = 1;  // CUmemRangeHandleType

class LoadedCuda final : public DeviceMemory {
 public:
  explicit LoadedCuda(const cuda::Driver& driver) : driver_(driver) {}
  ~LoadedCuda() override {
    for (const auto& [context, stream] : streams_) (void)driver_.stream_destroy(stream);
  }

  // Managed memory may be anywhere, and the host may use it.
  bool on_device(const void* address) const override {
    return place_of(driver_, address).kind == cuda::MemoryPlace::Kind::kGpu;
  }

  Place place(const void* address) const override {
    Place place;
    const cuda::MemoryPlace known = place_of(driver_, address);
    place.on_device = known.kind == cuda::MemoryPlace::Kind::kGpu;
    if (!place.on_device) return place;
    cuda::CUdevice device = 0;
    if (driver_.device_get(&device, known.ordinal) != cuda::kSuccess) return place;
    char pci[32] = "";
    if (driver_.device_pci(pci, sizeof pci, device) == cuda::kSuccess) place.pci = pci;
    std::transform(place.pci.begin(), place.pci.end(), place.pci.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    int ordering = 0;
    place.writes_ordered =
        driver_.device_attribute(&ordering, cuda::kWritesOrdering, device) == cuda::kSuccess &&
        ordering >= kOrderedForOwner;
    return place;
  }

  void synchronise_copies(const void* address) const override {
    const int yes = 1;
    (void)driver_.pointer_set(&yes, cuda::kAttributeSyncMemops, cuda::number_of(address));
  }

  Result<UniqueFd> export_dmabuf(const void* base, size_t bytes) const override {
    int fd = -1;
    const cuda::CUresult result =
        driver_.range_handle(&fd, cuda::number_of(base), bytes, kDmabufHandle, 0);
    if (result != cuda::kSuccess) return failed(result, "cuMemGetHandleForAddressRange");
    return UniqueFd(fd);
  }

  Status copy(void* dst, const void* src, size_t bytes) const override {
    cuda::CUcontext context = nullptr;
    if (const cuda::CUresult found = find_context(driver_, on_device(dst) ? dst : src, &context);
        found != cuda::kSuccess)
      return failed(found, "finding the CUDA context of a buffer");
    if (const cuda::CUresult pushed = driver_.context_push(context); pushed != cuda::kSuccess)
      return failed(pushed, "cuCtxPushCurrent");
    // cuMemcpy would wait for streams that may be waiting for this very operation.
    cuda::CUstream stream = nullptr;
    cuda::CUresult copied = stream_of(context, &stream);
    if (copied == cuda::kSuccess)
      copied = driver_.copy_async(cuda::number_of(dst), cuda::number_of(src), bytes, stream);
    if (copied == cuda::kSuccess) copied = driver_.stream_synchronize(stream);
    cuda::CUcontext popped = nullptr;
    (void)driver_.context_pop(&popped);
    return copied == cuda::kSuccess ? Status::ok() : failed(copied, "copying GPU memory");
  }

 private:
  // The one for copies in this context, which is current.
  cuda::CUresult stream_of(cuda::CUcontext context, cuda::CUstream* stream) const {
    const std::lock_guard lock(mutex_);
    cuda::CUstream& known = streams_[context];
    const cuda::CUresult made = known != nullptr
                                    ? cuda::kSuccess
                                    : driver_.stream_create(&known, cuda::kStreamNonBlocking, 0);
    *stream = known;
    return made;
  }
  Status failed(cuda::CUresult result, const char* what) const {
    const char* name = nullptr;
    (void)driver_.error_name(result, &name);
    return error(Code::kSystem, "{}: {}", what, name != nullptr ? name : std::to_string(result));
  }

  const cuda::Driver& driver_;
  mutable std::mutex mutex_;
  mutable std::map<cuda::CUcontext, cuda::CUstream> streams_;  // with mutex_
};

}  // namespace

std::shared_ptr<const DeviceMemory> CudaMemory::of_this_process() {
  const cuda::Driver* driver = cuda::Driver::find();
  return driver != nullptr ? std::make_shared<LoadedCuda>(*driver) : nullptr;
}

}  // namespace libcomm
