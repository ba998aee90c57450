// A libcuda.so.1 for tests: the few calls that the library makes about memory, over memfds. Device
// memory is mapped without access, so that whoever takes it for host memory ends at once. Three
// GPUs, at the places that tests/topology/data/switches.xml has them.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <string>

#include "tests/doubles/cuda/control.h"

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kNotInitialised = 3, kInvalidContext = 201,
              kNotSupported = 801;
constexpr const char* kPlaces[] = {"0000:03:00.0", "0000:07:00.0", "0000:81:00.0"};

struct Allocation {
  std::byte* base = nullptr;    // no access
  std::byte* shadow = nullptr;  // the same memory, for us
  size_t bytes = 0;             // whole pages
  int fd = -1;
  int ordinal = 0;
};

struct Kernel {
  size_t argument_bytes = 0;
  void (*run)(const void* arguments, unsigned grid, unsigned block) = nullptr;
};

struct State {
  std::mutex mutex;
  std::map<const std::byte*, Allocation> memory;
  std::map<std::string, Kernel> kernels;
  bool dmabuf = true, initialised = true;
  int ordering = 0;
  uint64_t copies = 0;

  // Null for host memory.
  const Allocation* find(const void* pointer) const {
    const auto* at = static_cast<const std::byte*>(pointer);
    auto after = memory.upper_bound(at);
    if (after == memory.begin()) return nullptr;
    const Allocation& before = std::prev(after)->second;
    return at < before.base + before.bytes ? &before : nullptr;
  }
  // Where a processor reaches it.
  std::byte* reach(void* pointer) const {
    const Allocation* found = find(pointer);
    auto* at = static_cast<std::byte*>(pointer);
    return found == nullptr ? at : found->shadow + (at - found->base);
  }
};

State& state() {
  static State& one = *new State;
  return one;
}

thread_local int g_contexts = 0;

void* pointer_of(unsigned long long number) { return reinterpret_cast<void*>(number); }

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void* cuda_double_alloc(size_t bytes, int ordinal) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  Allocation made;
  made.bytes = (bytes + page - 1) / page * page;
  made.ordinal = ordinal;
  made.fd = ::memfd_create("device memory", MFD_CLOEXEC);
  if (made.fd < 0 || ::ftruncate(made.fd, static_cast<off_t>(made.bytes)) != 0) return nullptr;
  void* base = ::mmap(nullptr, made.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* shadow = ::mmap(nullptr, made.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made.fd, 0);
  if (base == MAP_FAILED || shadow == MAP_FAILED) return nullptr;
  made.base = static_cast<std::byte*>(base);
  made.shadow = static_cast<std::byte*>(shadow);
  const std::lock_guard lock(state().mutex);
  state().memory[made.base] = made;
  return base;
}

EXPORT void cuda_double_free(void* pointer) {
  const std::lock_guard lock(state().mutex);
  const auto found = state().memory.find(static_cast<std::byte*>(pointer));
  if (found == state().memory.end()) return;
  ::munmap(found->second.base, found->second.bytes);
  ::munmap(found->second.shadow, found->second.bytes);
  ::close(found->second.fd);
  state().memory.erase(found);
}

EXPORT void cuda_double_write(void* pointer, const void* from, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  std::memcpy(state().reach(pointer), from, bytes);
}

EXPORT void cuda_double_read(void* to, const void* pointer, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  std::memcpy(to, state().reach(const_cast<void*>(pointer)), bytes);
}

EXPORT int cuda_double_export(const void* pointer, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  const Allocation* found = state().find(pointer);
  const auto* at = static_cast<const std::byte*>(pointer);
  if (found == nullptr || bytes > static_cast<size_t>(found->base + found->bytes - at)) return -1;
  // Of its own, since a duplicate would share the file offset.
  const std::string name = "/proc/self/fd/" + std::to_string(found->fd);
  const int fd = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) (void)::lseek(fd, at - found->base, SEEK_SET);
  return fd;
}

EXPORT void cuda_double_set(const char* what, int value) {
  const std::lock_guard lock(state().mutex);
  const std::string name = what;
  if (name == "dmabuf") state().dmabuf = value != 0;
  if (name == "ordering") state().ordering = value;
  if (name == "initialised") state().initialised = value != 0;
}

EXPORT void cuda_double_register_kernel(const char* name, size_t argument_bytes,
                                        void (*run)(const void*, unsigned, unsigned)) {
  const std::lock_guard lock(state().mutex);
  state().kernels[name] = {argument_bytes, run};
}

EXPORT void* cuda_double_resolve(void* pointer, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  const Allocation* found = state().find(pointer);
  const auto* at = static_cast<const std::byte*>(pointer);
  if (found != nullptr && bytes <= static_cast<size_t>(found->base + found->bytes - at))
    return state().reach(pointer);
  std::fprintf(stderr, "cuda double: a kernel touches %zu bytes at %p: no such device memory\n",
               bytes, pointer);
  std::abort();
}

EXPORT uint64_t cuda_double_copies() {
  const std::lock_guard lock(state().mutex);
  return state().copies;
}

EXPORT int cuPointerGetAttribute(void* out, int attribute, unsigned long long number) {
  const std::lock_guard lock(state().mutex);
  if (!state().initialised) return kNotInitialised;
  const Allocation* found = state().find(pointer_of(number));
  if (found == nullptr) return kInvalidValue;
  switch (attribute) {
    case 1: {  // the context
      void* context = nullptr;
      std::memcpy(out, &context, sizeof context);
      return kSuccess;
    }
    case 2:  // device memory
      *static_cast<unsigned*>(out) = 2;
      return kSuccess;
    case 8:  // managed
      *static_cast<int*>(out) = 0;
      return kSuccess;
    case 9:
      *static_cast<int*>(out) = found->ordinal;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}

EXPORT int cuPointerSetAttribute(const void* value, int attribute, unsigned long long number) {
  const std::lock_guard lock(state().mutex);
  const bool sync = attribute == 6 && *static_cast<const int*>(value) == 1;
  return sync && state().find(pointer_of(number)) != nullptr ? kSuccess : kInvalidValue;
}

EXPORT int cuMemGetHandleForAddressRange(void* out, unsigned long long number, size_t bytes,
                                         int type, unsigned long long flags) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  {
    const std::lock_guard lock(state().mutex);
    if (!state().dmabuf) return kNotSupported;
  }
  if (type != 1 || flags != 0 || number % page != 0 || bytes % page != 0) return kInvalidValue;
  const int fd = cuda_double_export(pointer_of(number), bytes);
  if (fd < 0) return kInvalidValue;
  *static_cast<int*>(out) = fd;
  return kSuccess;
}

EXPORT int cuDeviceGet(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= static_cast<int>(std::size(kPlaces))) return kInvalidValue;
  *device = ordinal;
  return kSuccess;
}

EXPORT int cuDeviceGetAttribute(int* value, int attribute, int /*device*/) {
  const std::lock_guard lock(state().mutex);
  if (attribute != 118) return kInvalidValue;
  *value = state().ordering;
  return kSuccess;
}

EXPORT int cuDeviceGetPCIBusId(char* text, int room, int device) {
  std::snprintf(text, static_cast<size_t>(room), "%s", kPlaces[device]);
  return kSuccess;
}

EXPORT int cuDevicePrimaryCtxRetain(void** context, int /*device*/) {
  *context = &state();
  return kSuccess;
}

EXPORT int cuCtxPushCurrent_v2(void* context) {
  if (context == nullptr) return kInvalidContext;
  ++g_contexts;
  return kSuccess;
}

EXPORT int cuCtxPopCurrent_v2(void** context) {
  if (g_contexts == 0) return kInvalidContext;
  --g_contexts;
  *context = &state();
  return kSuccess;
}

EXPORT int cuMemcpy(unsigned long long dst, unsigned long long src, size_t bytes) {
  if (g_contexts == 0) return kInvalidContext;
  const std::lock_guard lock(state().mutex);
  ++state().copies;
  std::memcpy(state().reach(pointer_of(dst)), state().reach(pointer_of(src)), bytes);
  return kSuccess;
}

EXPORT int cuGetErrorName(int code, const char** name) {
  *name = code == kNotSupported     ? "CUDA_ERROR_NOT_SUPPORTED"
          : code == kNotInitialised ? "CUDA_ERROR_NOT_INITIALIZED"
          : code == kInvalidContext ? "CUDA_ERROR_INVALID_CONTEXT"
                                    : "CUDA_ERROR_INVALID_VALUE";
  return kSuccess;
}
