// Calls about the library, its errors and its memory.
#include <exception>
#include <mutex>
#include <string>

#include "bindings/nccl/call.h"

namespace nccl_binding {
namespace {

// The binding's own last failure in this thread; null when libcomm's is the later one.
thread_local const char* t_text = nullptr;
thread_local ncclComm_t t_comm = nullptr;

// The last failure in any thread. NCCL knows no other, and programs ask in another thread than the
// one that has failed: PyTorch does so in the one that watches.
class ProcessError {
 public:
  void set(const char* text) {
    try {
      const std::lock_guard lock(mutex_);
      text_ = text;
    } catch (const std::exception&) {  // out of memory: the one before stays
    }
  }
  // Stays good until this thread's next call of text().
  const char* text() const {
    thread_local std::string copy;
    try {
      const std::lock_guard lock(mutex_);
      copy = text_;
    } catch (const std::exception&) {
      copy.clear();
    }
    return copy.c_str();
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

ProcessError& process_error() {
  static auto* const the_only = new ProcessError;  // for threads that outlive the destructors, too
  return *the_only;
}

}  // namespace

ncclResult_t result_of(commResult_t result) {
  if (result != commSuccess && result != commInProgress) {
    t_text = nullptr;
    process_error().set(commGetLastError(nullptr));
  }
  return static_cast<ncclResult_t>(result);
}

ncclResult_t refuse(ncclResult_t result, const char* text, ncclComm_t comm) {
  t_text = text;
  t_comm = comm;
  process_error().set(text);
  return result;
}

void note_failure_of(ncclComm_t comm) { process_error().set(commGetLastError(to_comm(comm))); }

}  // namespace nccl_binding

using namespace nccl_binding;  // NOLINT: the definitions live in the global namespace

NCCL_EXPORT ncclResult_t pncclGetVersion(int* version) {
  static_assert(NCCL_VERSION_CODE == COMM_VERSION_CODE);
  return result_of(commGetVersion(version));
}
NCCL_WEAK_TWIN(GetVersion)

NCCL_EXPORT const char* pncclGetErrorString(ncclResult_t result) {
  return commGetErrorString(static_cast<commResult_t>(result));
}
NCCL_WEAK_TWIN(GetErrorString)

NCCL_EXPORT const char* pncclGetLastError(ncclComm_t comm) {
  if (t_text != nullptr && (comm == nullptr || comm == t_comm)) return t_text;
  const char* const text = commGetLastError(to_comm(comm));
  return *text == '\0' ? process_error().text() : text;
}
NCCL_WEAK_TWIN(GetLastError)

// NCCL forgets here what it has read about logging. The binding reads the variables again.
NCCL_EXPORT void pncclResetDebugInit() { read_environment(); }
NCCL_WEAK_TWIN(ResetDebugInit)

// In NCCL 2.28 a C++ function behind a C name, exported without a twin.
NCCL_EXPORT void ncclResetDebugInitInternal();
void ncclResetDebugInitInternal() { read_environment(); }

NCCL_EXPORT ncclResult_t pncclMemAlloc(void** ptr, size_t size) {
  return result_of(commMemAlloc(ptr, size));
}
NCCL_WEAK_TWIN(MemAlloc)

NCCL_EXPORT ncclResult_t pncclMemFree(void* ptr) { return result_of(commMemFree(ptr)); }
NCCL_WEAK_TWIN(MemFree)

NCCL_EXPORT ncclResult_t pncclCommRegister(const ncclComm_t comm, void* buff, size_t size,
                                           void** handle) {
  return result_of(commRegister(to_comm(comm), buff, size, handle));
}
NCCL_WEAK_TWIN(CommRegister)

NCCL_EXPORT ncclResult_t pncclCommDeregister(const ncclComm_t comm, void* handle) {
  return result_of(commDeregister(to_comm(comm), handle));
}
NCCL_WEAK_TWIN(CommDeregister)

NCCL_EXPORT ncclResult_t pncclCommWindowRegister(ncclComm_t comm, void* buff, size_t size,
                                                 ncclWindow_t* win, int winFlags) {
  return result_of(commWindowRegister(to_comm(comm), buff, size,
                                      reinterpret_cast<commWindow_t*>(win), winFlags));
}
NCCL_WEAK_TWIN(CommWindowRegister)

NCCL_EXPORT ncclResult_t pncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win) {
  return result_of(commWindowDeregister(to_comm(comm), reinterpret_cast<commWindow_t>(win)));
}
NCCL_WEAK_TWIN(CommWindowDeregister)
