// The declarations of the driver's interface that are used here are written down by hand: no CUDA
// header is needed to build, and the values are part of the driver's ABI.
#include "transports/cuda_memory.h"

#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace libcomm {
namespace {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = void*;

constexpr CUresult kSuccess = 0;
// CUpointer_attribute
constexpr int kContextOf = 1, kMemoryType = 2, kSyncMemops = 6, kIsManaged = 8, kOrdinal = 9;
constexpr unsigned kTypeDevice = 2;  // CUmemorytype
// CUdevice_attribute; the values of the first begin at 0 (none), 100 is "for the GPU itself".
constexpr int kWritesOrdering = 118;
constexpr int kOrderedForOwner = 100;
constexpr int kDmabufHandle = 1;  // CUmemRangeHandleType

struct Driver {
  CUresult (*pointer_get)(void*, int, CUdeviceptr) = nullptr;
  CUresult (*pointer_set)(const void*, int, CUdeviceptr) = nullptr;
  CUresult (*range_handle)(void*, CUdeviceptr, size_t, int, unsigned long long) = nullptr;
  CUresult (*device_get)(CUdevice*, int) = nullptr;
  CUresult (*device_attribute)(int*, int, CUdevice) = nullptr;
  CUresult (*device_pci)(char*, int, CUdevice) = nullptr;
  CUresult (*primary_retain)(CUcontext*, CUdevice) = nullptr;
  CUresult (*push)(CUcontext) = nullptr;
  CUresult (*pop)(CUcontext*) = nullptr;
  CUresult (*memcpy)(CUdeviceptr, CUdeviceptr, size_t) = nullptr;
  CUresult (*error_name)(CUresult, const char**) = nullptr;

  bool find_in(void* library) {
    const auto look = [library](const char* name, auto* function) {
      void* symbol = ::dlsym(library, name);
      std::memcpy(function, &symbol, sizeof symbol);
      return symbol != nullptr;
    };
    (void)look("cuMemGetHandleForAddressRange", &range_handle);  // from CUDA 11.7 on
    return look("cuPointerGetAttribute", &pointer_get) &&
           look("cuPointerSetAttribute", &pointer_set) && look("cuDeviceGet", &device_get) &&
           look("cuDeviceGetAttribute", &device_attribute) &&
           look("cuDeviceGetPCIBusId", &device_pci) &&
           look("cuDevicePrimaryCtxRetain", &primary_retain) &&
           look("cuCtxPushCurrent_v2", &push) && look("cuCtxPopCurrent_v2", &pop) &&
           look("cuMemcpy", &memcpy) && look("cuGetErrorName", &error_name);
  }
};

CUdeviceptr number_of(const void* address) { return reinterpret_cast<uintptr_t>(address); }

class LoadedCuda final : public DeviceMemory {
 public:
  explicit LoadedCuda(const Driver& driver) : driver_(driver) {}

  bool on_device(const void* address) const override {
    unsigned type = 0;
    if (get(&type, kMemoryType, address) != kSuccess || type != kTypeDevice) return false;
    int managed = 0;  // such memory may be anywhere, and the host may use it
    return get(&managed, kIsManaged, address) != kSuccess || managed == 0;
  }

  Place place(const void* address) const override {
    Place place;
    place.on_device = on_device(address);
    if (!place.on_device) return place;
    CUdevice device = 0;
    if (device_of(address, &device) != kSuccess) return place;
    char pci[32] = "";
    if (driver_.device_pci(pci, sizeof pci, device) == kSuccess) place.pci = pci;
    std::transform(place.pci.begin(), place.pci.end(), place.pci.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    int ordering = 0;
    place.writes_ordered =
        driver_.device_attribute(&ordering, kWritesOrdering, device) == kSuccess &&
        ordering >= kOrderedForOwner;
    return place;
  }

  void synchronise_copies(const void* address) const override {
    const int yes = 1;
    (void)driver_.pointer_set(&yes, kSyncMemops, number_of(address));
  }

  Result<UniqueFd> export_dmabuf(const void* base, size_t bytes) const override {
    if (driver_.range_handle == nullptr)
      return error(Code::kSystem, "the CUDA driver has no DMA-BUF: it is older than CUDA 11.7");
    int fd = -1;
    const CUresult result = driver_.range_handle(&fd, number_of(base), bytes, kDmabufHandle, 0);
    if (result != kSuccess) return failed(result, "cuMemGetHandleForAddressRange");
    return UniqueFd(fd);
  }

  Status copy(void* dst, const void* src, size_t bytes) const override {
    CUcontext context = nullptr;
    if (const CUresult found = context_of(on_device(dst) ? dst : src, &context); found != kSuccess)
      return failed(found, "finding the CUDA context of a buffer");
    if (const CUresult pushed = driver_.push(context); pushed != kSuccess)
      return failed(pushed, "cuCtxPushCurrent");
    const CUresult copied = driver_.memcpy(number_of(dst), number_of(src), bytes);
    CUcontext popped = nullptr;
    (void)driver_.pop(&popped);
    return copied == kSuccess ? Status::ok() : failed(copied, "cuMemcpy");
  }

 private:
  CUresult get(void* out, int attribute, const void* address) const {
    return driver_.pointer_get(out, attribute, number_of(address));
  }
  CUresult device_of(const void* address, CUdevice* device) const {
    int ordinal = 0;
    if (const CUresult found = get(&ordinal, kOrdinal, address); found != kSuccess) return found;
    return driver_.device_get(device, ordinal);
  }
  // Memory of cuMemCreate and of pools has no context of its own: that of its GPU does.
  CUresult context_of(const void* address, CUcontext* context) const {
    if (get(context, kContextOf, address) == kSuccess && *context != nullptr) return kSuccess;
    CUdevice device = 0;
    if (const CUresult found = device_of(address, &device); found != kSuccess) return found;
    return driver_.primary_retain(context, device);
  }
  Status failed(CUresult result, const char* what) const {
    const char* name = nullptr;
    (void)driver_.error_name(result, &name);
    return error(Code::kSystem, "{}: {}", what, name != nullptr ? name : std::to_string(result));
  }

  const Driver driver_;
};

}  // namespace

std::shared_ptr<const DeviceMemory> CudaMemory::of_this_process() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  if (library == nullptr) return nullptr;
  Driver driver;
  const bool whole = driver.find_in(library);
  ::dlclose(library);  // the program keeps it
  if (!whole) return nullptr;
  return std::make_shared<LoadedCuda>(driver);
}

}  // namespace libcomm
