#include "src/device/driver.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstring>

#include "src/base/fork_mutex.h"
#include "src/base/log.h"

namespace libcomm::cuda {
namespace {

// How many libraries have been loaded into this process so far: it changes with every dlopen that
// brings one.
unsigned long long libraries_loaded() {
  unsigned long long adds = 0;
  const auto look = [](dl_phdr_info* info, size_t, void* out) {
    *static_cast<unsigned long long*>(out) = info->dlpi_adds;
    return 1;  // the first one tells
  };
  ::dl_iterate_phdr(look, &adds);
  return adds;
}

// The first call that the library has not is named in `missing`.
bool fill(void* library, Driver* driver, const char** missing) {
  const auto look = [&](const char* name, auto* function) {
    void* symbol = ::dlsym(library, name);
    std::memcpy(function, &symbol, sizeof symbol);
    if (symbol == nullptr) *missing = name;
    return symbol != nullptr;
  };
#define CUDA_CALL(member, symbol, ...) \
  if (!look(#symbol, &driver->member)) return false;
#include "src/device/driver_calls.def"
#undef CUDA_CALL
  return true;
}

const Driver* open_loaded() {
  // Neither loads it nor lets it go: who has it loaded keeps it.
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  if (library == nullptr) return nullptr;
  static Driver driver;
  const char* missing = "";
  const bool whole = fill(library, &driver, &missing);
  ::dlclose(library);
  if (whole) return &driver;
  log_warn(
      "the CUDA driver of this process lacks {}: device memory is not used; libcomm needs a "
      "driver of CUDA 11.7 or later",
      missing);
  return nullptr;
}

std::atomic<unsigned long long> g_looked_at{0};  // libraries_loaded() when none was found last
ForkMutex& g_opening = *new ForkMutex;           // calls at process exit find it

}  // namespace

constinit std::atomic<const Driver*> Driver::found_{nullptr};

const Driver* Driver::find() {
  if (const Driver* known = found()) return known;
  const unsigned long long loaded = libraries_loaded();
  if (g_looked_at.load(std::memory_order_acquire) == loaded) return nullptr;
  std::lock_guard lock(g_opening);
  if (const Driver* known = found()) return known;
  const Driver* opened = open_loaded();
  found_.store(opened, std::memory_order_release);
  g_looked_at.store(loaded, std::memory_order_release);
  return opened;
}

Status Driver::check(CUresult result, const char* what) const {
  if (result == kSuccess) return Status::ok();
  const char* name = nullptr;
  const char* text = nullptr;
  (void)error_name(result, &name);
  (void)error_string(result, &text);
  return error(Code::kUnhandledCuda, "{}: {} ({})", what,
               name != nullptr ? name : "CUDA error " + std::to_string(result),
               text != nullptr ? text : "no text");
}

}  // namespace libcomm::cuda
