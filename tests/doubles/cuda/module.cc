// cuModule*, cuLaunchKernel: kernels are functions of the host, found by their names.
#include "tests/doubles/cuda/module.h"

#include <cstring>
#include <vector>

#include "tests/doubles/cuda/control.h"
#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr unsigned kMostThreads = 1024;

thread_local Context* t_kernel_of = nullptr;  // the context of the kernel in this thread

void run_kernel(Context& context, Kernel& kernel, const void* arguments, unsigned grid,
                unsigned block) {
  t_kernel_of = &context;
  kernel.run(arguments, grid, block);
  t_kernel_of = nullptr;
  ++kernel.launches;
}

}  // namespace

CUresult cuModuleLoadData(CUmodule* out, const void* image) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || image == nullptr) return kInvalidValue;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    const auto made = std::make_shared<Module>();
    made->context = context;
    state.modules[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

CUresult cuModuleUnload(CUmodule handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    if (state.modules.count(handle) == 0)
      return misuse(nullptr, kInvalidHandle, "%p is no loaded module", handle);
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    std::erase_if(state.functions,
                  [&](const auto& each) { return each.second->module.get() == handle; });
    state.modules.erase(handle);
    return kSuccess;
  });
}

CUresult cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr || name == nullptr) return kInvalidValue;
    const auto module = state.modules.find(handle);
    if (module == state.modules.end())
      return misuse(nullptr, kInvalidHandle, "%p is no loaded module", handle);
    const auto kernel = state.kernels.find(name);
    if (kernel == state.kernels.end()) return kNotFound;
    for (const auto& [known, function] : state.functions) {
      if (function->module != module->second || function->kernel != kernel->second) continue;
      *out = known;
      return kSuccess;
    }
    const auto made = std::make_shared<Function>();
    made->module = module->second;
    made->kernel = kernel->second;
    state.functions[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

CUresult cuLaunchKernel(CUfunction handle, unsigned grid, unsigned grid_y, unsigned grid_z,
                        unsigned block, unsigned block_y, unsigned block_z, unsigned, CUstream on,
                        void** parameters, void** extra) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const auto function = state.functions.find(handle);
    if (function == state.functions.end())
      return misuse(nullptr, kInvalidHandle, "%p is no function of a loaded module", handle);
    const StreamRef stream = stream_of(state, *context, on);
    if (stream == nullptr || &stream->context() != context ||
        function->second->module->context != context)
      return kInvalidHandle;
    const bool linear = grid_y == 1 && grid_z == 1 && block_y == 1 && block_z == 1;
    if (!linear || grid == 0 || block == 0 || block > kMostThreads || extra != nullptr)
      return kInvalidValue;
    const auto kernel = function->second->kernel;
    auto arguments = std::make_shared<std::vector<std::byte>>(kernel->argument_bytes);
    if (kernel->argument_bytes > 0) {
      if (parameters == nullptr || parameters[0] == nullptr) return kInvalidValue;
      std::memcpy(arguments->data(), parameters[0], arguments->size());
    }
    return submit(state, *stream,
                  {[kernel, arguments, grid, block](Context& of) {
                     run_kernel(of, *kernel, arguments->data(), grid, block);
                   },
                   {}});
  });
}

extern "C" {

EXPORT void cuda_double_register_kernel(const char* name, size_t argument_bytes,
                                        void (*run)(const void*, unsigned, unsigned)) {
  const auto made = std::make_shared<Kernel>();
  made->name = name;
  made->argument_bytes = argument_bytes;
  made->run = run;
  State& all = state();
  const std::lock_guard lock(all.mutex);
  all.kernels[name] = made;
}

EXPORT void* cuda_double_resolve(void* pointer, size_t bytes) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  Reach range;
  if (reach(all, t_kernel_of, pointer, bytes, &range) != kSuccess)
    die("a kernel touches %zu bytes at %p, which it may not", bytes, pointer);
  if (range.pageable())
    die("a kernel touches %zu bytes of pageable host memory at %p", bytes, pointer);
  return range.at;
}

EXPORT uint64_t cuda_double_launches(const char* kernel) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  const auto found = all.kernels.find(kernel);
  return found == all.kernels.end() ? 0 : found->second->launches.load();
}

}  // extern "C"
}  // namespace libcomm::cuda::doubled
