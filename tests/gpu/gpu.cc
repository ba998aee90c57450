#include "tests/gpu/gpu.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace gpu {
namespace {

using Address = unsigned long long;

void* library() {
  static void* const loaded = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return loaded;
}

template <typename... Arguments>
int attempt(const char* name, Arguments... arguments) {
  return reinterpret_cast<int (*)(Arguments...)>(symbol(name))(arguments...);
}

template <typename... Arguments>
void call(const char* name, Arguments... arguments) {
  const int result = attempt(name, arguments...);
  if (result != 0) throw Failed(std::string(name) + " gave " + std::to_string(result));
}

Address number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

void* made(Address address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }

}  // namespace

void* symbol(const char* name) {
  void* found = library() == nullptr ? nullptr : dlsym(library(), name);
  if (found == nullptr) throw Failed(std::string("no CUDA driver with ") + name);
  return found;
}

int count() {
  if (library() == nullptr || attempt("cuInit", 0U) != 0) return 0;
  int found = 0;
  return attempt("cuDeviceGetCount", &found) == 0 ? found : 0;
}

bool is_double() { return library() != nullptr && dlsym(library(), "cuda_double_set") != nullptr; }

bool executor_is_forced() {
  const char* said = std::getenv("COMM_GPU_EXECUTOR");
  return said != nullptr && std::strcmp(said, "ALWAYS") == 0;
}

void use(int ordinal) {
  call("cuInit", 0U);
  int device = 0;
  void* context = nullptr;
  call("cuDeviceGet", &device, ordinal);
  call("cuDevicePrimaryCtxRetain", &context, device);
  call("cuCtxSetCurrent", context);
}

void* allocate(size_t bytes) {
  Address address = 0;
  call("cuMemAlloc_v2", &address, bytes);
  return made(address);
}

void free(void* device) { call("cuMemFree_v2", number(device)); }

void* allocate_pinned(size_t bytes) {
  void* host = nullptr;
  call("cuMemHostAlloc", &host, bytes, 0U);
  return host;
}

void free_pinned(void* host) { call("cuMemFreeHost", host); }

void* allocate_managed(size_t bytes) {
  Address address = 0;
  call("cuMemAllocManaged", &address, bytes, 1U);
  return made(address);
}

Stream create_stream() {
  Stream stream = nullptr;
  call("cuStreamCreate", &stream, 1U);
  return stream;
}

void destroy(Stream stream) { call("cuStreamDestroy_v2", stream); }

void copy(void* to, const void* from, size_t bytes, Stream stream) {
  call("cuMemcpyAsync", number(to), number(from), bytes, stream);
}

void fill(void* device, unsigned char value, size_t bytes, Stream stream) {
  call("cuMemsetD8Async", number(device), value, bytes, stream);
}

void synchronise(Stream stream) { call("cuStreamSynchronize", stream); }

bool is_idle(Stream stream) {
  const int result = attempt("cuStreamQuery", stream);
  constexpr int kNotReady = 600;
  if (result != 0 && result != kNotReady)
    throw Failed("cuStreamQuery gave " + std::to_string(result));
  return result == 0;
}

void follow(Stream later, Stream earlier) {
  void* event = nullptr;
  constexpr unsigned kNoTime = 2;
  call("cuEventCreate", &event, kNoTime);
  call("cuEventRecord", event, earlier);
  call("cuStreamWaitEvent", later, event, 0U);
  call("cuEventDestroy_v2", event);
}

Graph::Graph(Stream stream, const std::function<void()>& body) {
  void* graph = nullptr;
  call("cuStreamBeginCapture_v2", stream, 1);  // thread-local: other ranks are threads
  body();
  call("cuStreamEndCapture", stream, &graph);
  call("cuGraphInstantiateWithFlags", &ready_, graph, 0ULL);
  call("cuGraphDestroy", graph);
}

Graph::~Graph() { (void)attempt("cuGraphExecDestroy", ready_); }

void Graph::launch(Stream stream) const { call("cuGraphLaunch", ready_, stream); }

}  // namespace gpu
