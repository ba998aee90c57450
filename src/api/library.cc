// Calls about the library, its memory and its operators.
#include <cstddef>
#include <cstdint>

#include "src/api/check.h"
#include "src/api/errors.h"
#include "src/api/group.h"
#include "src/api/handle.h"
#include "src/device/allocations.h"
#include "transports/shm/memory.h"

using namespace libcomm;  // NOLINT: the C API's definitions live in the global namespace

namespace {

// Adds a registration to `set`; the handle is its address.
Status add_registration(comm* handle, void* buffer, size_t size,
                        std::set<comm::Registration*> comm::*set, void** out) {
  auto entry = std::make_unique<comm::Registration>(comm::Registration{buffer, size});
  std::lock_guard lock(handle->mutex);
  (handle->*set).insert(entry.get());
  *out = entry.release();
  return Status::ok();
}

Status remove_registration(comm* handle, void* registration,
                           std::set<comm::Registration*> comm::*set, const char* call) {
  std::lock_guard lock(handle->mutex);
  auto* entry = static_cast<comm::Registration*>(registration);
  if ((handle->*set).erase(entry) == 0)
    return error(Code::kInvalidArgument,
                 "{}: {} was not registered with this communicator, or was deregistered before",
                 call, registration);
  delete entry;
  return Status::ok();
}

Status check_range(const void* buffer, size_t size) {
  if (buffer == nullptr) return Status(Code::kInvalidArgument, "buff is NULL");
  if (size == 0) return Status(Code::kInvalidArgument, "size is 0; nothing to register");
  if (size > static_cast<size_t>(PTRDIFF_MAX))
    return error(Code::kInvalidArgument, "size {} is more than can be addressed", size);
  return Status::ok();
}

}  // namespace

extern "C" {

commResult_t commGetVersion(int* version) {
  return guarded(nullptr, [&]() -> Status {
    if (version == nullptr) return Status(Code::kInvalidArgument, "version is NULL");
    *version = COMM_VERSION_CODE;
    return Status::ok();
  });
}

commResult_t commGetLibraryVersion(const char** version) {
  return guarded(nullptr, [&]() -> Status {
    if (version == nullptr) return Status(Code::kInvalidArgument, "version is NULL");
    *version = COMM_LIBRARY_VERSION;
    return Status::ok();
  });
}

commResult_t commSetKnobDefault(const char* knob, const char* value, const char* origin) {
  return guarded(nullptr, [&]() -> Status {
    if (knob == nullptr) return Status(Code::kInvalidArgument, "knob is NULL");
    return set_knob_default(knob, value, origin == nullptr || *origin == '\0' ? "program" : origin);
  });
}

const char* commGetErrorString(commResult_t result) {
  switch (result) {
    case commSuccess:
      return "no error";
    case commUnhandledCudaError:
      return "a CUDA call failed";
    case commSystemError:
      return "the operating system refused something, or a deadline passed";
    case commInternalError:
      return "internal error; please report it";
    case commInvalidArgument:
      return "invalid argument";
    case commInvalidUsage:
      return "invalid usage";
    case commRemoteError:
      return "another rank failed, aborted or left";
    case commInProgress:
      return "still in progress";
    default:
      return "unknown result code";
  }
}

const char* commGetLastError(comm_t comm) {
  try {
    struct comm* real = nullptr;
    if (comm == nullptr || !find_handle(comm, &real)) return last_error_of_thread();
    std::string text = real->last_error();
    return text.empty() ? last_error_of_thread() : keep_for_thread(std::move(text));
  } catch (const std::exception&) {
    return "out of memory";
  }
}

commResult_t commGetUniqueId(commUniqueId* uniqueId) {
  return guarded(nullptr, [&]() -> Status {
    if (uniqueId == nullptr) return Status(Code::kInvalidArgument, "uniqueId is NULL");
    COMM_ASSIGN(const auto knobs, Knobs::load());
    COMM_ASSIGN(const UniqueIdBytes bytes, make_unique_id(*knobs));
    std::copy(bytes.begin(), bytes.end(), uniqueId->internal);
    return Status::ok();
  });
}

commResult_t commMemAlloc(void** ptr, size_t size) {
  return guarded(nullptr, [&]() -> Status {
    if (ptr == nullptr) return Status(Code::kInvalidArgument, "ptr is NULL");
    *ptr = nullptr;
    if (size == 0) return Status::ok();
    if (const cuda::Driver* driver = cuda::Driver::find()) {
      COMM_ASSIGN(*ptr, cuda::alloc_on_current_gpu(*driver, size));
      if (*ptr != nullptr) return Status::ok();
    }
    COMM_ASSIGN(*ptr, segment_alloc(size));
    return Status::ok();
  });
}

commResult_t commMemFree(void* ptr) {
  return guarded(nullptr, [&]() -> Status {
    if (ptr == nullptr) return Status::ok();
    COMM_ASSIGN(const bool was_on_gpu, cuda::free_allocation(ptr));
    return was_on_gpu ? Status::ok() : segment_free(ptr);
  });
}

commResult_t commRegister(const comm_t comm, void* buff, size_t size, void** handle) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (handle == nullptr) return Status(Code::kInvalidArgument, "handle is NULL");
    *handle = nullptr;
    COMM_TRY(check_range(buff, size));
    COMM_TRY(add_registration(use.handle(), buff, size, &comm::registrations, handle));
    use.communicator().lend(*handle, buff, size);
    return Status::ok();
  });
}

commResult_t commDeregister(const comm_t comm, void* handle) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    COMM_TRY(remove_registration(use.handle(), handle, &comm::registrations, "commDeregister"));
    use.communicator().take_back(handle);
    return Status::ok();
  });
}

commResult_t commWindowRegister(comm_t comm, void* buff, size_t size, commWindow_t* win,
                                int winFlags) {
  return gathered([&] {
    return with_handle(comm, [&](HandleUse& use) -> Status {
      if (win == nullptr) return Status(Code::kInvalidArgument, "win is NULL");
      *win = nullptr;
      COMM_TRY(check_range(buff, size));
      if (winFlags != COMM_WIN_DEFAULT && winFlags != COMM_WIN_COLL_SYMMETRIC)
        return error(Code::kInvalidArgument, "winFlags {} is not a COMM_WIN_ flag", winFlags);
      if (reinterpret_cast<uintptr_t>(buff) % COMM_WIN_REQUIRED_ALIGNMENT != 0)
        return error(
            Code::kInvalidArgument,
            "a window begins at a multiple of {} bytes, {} does not; commMemAlloc's memory does",
            COMM_WIN_REQUIRED_ALIGNMENT, buff);
      Communicator& communicator = use.communicator();
      const SetupTurn turn = communicator.take_setup_turn();
      void* entry = nullptr;
      if (!in_group()) {
        COMM_ASSIGN(const uint64_t number, communicator.agree_on_window(buff, size, turn));
        COMM_TRY(add_registration(use.handle(), buff, size, &comm::windows, &entry));
        communicator.keep_window(number, entry, buff, size);
        *win = static_cast<commWindow_t>(entry);
        return Status::ok();
      }
      // In a group, the exchange waits for the group's end, as every collective step does; a window
      // that is not agreed on is taken back then.
      COMM_TRY(add_registration(use.handle(), buff, size, &comm::windows, &entry));
      *win = static_cast<commWindow_t>(entry);
      const auto take_back = [handle = use.handle(), win, entry] {
        *win = nullptr;
        (void)remove_registration(handle, entry, &comm::windows, "commWindowRegister");
      };
      const auto agree = [kept = use.handle()->communicator, buff, entry, size, turn,
                          take_back]() -> Status {
        const auto number = kept->agree_on_window(buff, size, turn);
        if (!number) {
          take_back();
          return number.status();
        }
        kept->keep_window(*number, entry, buff, size);
        return Status::ok();
      };
      add_creation({.parent = &communicator, .run = agree, .skip = take_back});
      return Status::ok();
    });
  });
}

commResult_t commWindowDeregister(comm_t comm, commWindow_t win) {
  if (win == nullptr) return commSuccess;
  return with_handle(comm, [&](HandleUse& use) -> Status {
    COMM_TRY(remove_registration(use.handle(), win, &comm::windows, "commWindowDeregister"));
    use.communicator().take_back(win);
    return Status::ok();
  });
}

commResult_t commRedOpCreatePreMulSum(commRedOp_t* op, void* scalar, commDataType_t datatype,
                                      commScalarResidence_t residence, comm_t comm) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (op == nullptr) return Status(Code::kInvalidArgument, "op is NULL");
    if (scalar == nullptr) return Status(Code::kInvalidArgument, "scalar is NULL");
    if (residence != commScalarDevice && residence != commScalarHostImmediate)
      return error(Code::kInvalidArgument, "residence {} is not a commScalarResidence_t",
                   static_cast<int>(residence));
    COMM_ASSIGN(const DataType type, check_type(datatype));
    COMM_ASSIGN(const int index,
                use.communicator().create_op(type, scalar, residence == commScalarHostImmediate));
    *op = static_cast<commRedOp_t>(static_cast<int>(commNumOps) + index);
    return Status::ok();
  });
}

commResult_t commRedOpDestroy(commRedOp_t op, comm_t comm) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    return use.communicator().destroy_op(static_cast<int>(op) - static_cast<int>(commNumOps));
  });
}

commResult_t commGroupStart(void) {
  return guarded(nullptr, [] { return group_start(); });
}

commResult_t commGroupEnd(void) {
  return guarded(nullptr, [] { return group_end(); });
}

commResult_t commGroupSimulateEnd(commSimInfo_t* simInfo) {
  return guarded(nullptr, [&]() -> Status {
    constexpr size_t kHead = offsetof(commSimInfo_t, estimatedTime);
    // Before the group is given up: the caller may correct it and end the group again.
    if (simInfo != nullptr && simInfo->size < kHead)
      return error(Code::kInvalidArgument,
                   "simInfo.size {} is too small; start from COMM_SIM_INFO_INITIALIZER",
                   simInfo->size);
    if (simInfo != nullptr && simInfo->magic != 0x74685283)
      return error(Code::kInvalidArgument,
                   "simInfo.magic {:#x} is wrong; start from COMM_SIM_INFO_INITIALIZER",
                   simInfo->magic);
    double microseconds = 0;
    COMM_TRY(group_simulate_end(&microseconds));
    if (simInfo != nullptr && simInfo->size >= kHead + sizeof simInfo->estimatedTime)
      simInfo->estimatedTime = static_cast<float>(microseconds);
    return Status::ok();
  });
}

commResult_t commGetMemStats(comm_t comm, commMemStats_t* stats) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (stats == nullptr) return Status(Code::kInvalidArgument, "stats is NULL");
    if (stats->size < sizeof(size_t))
      return error(Code::kInvalidArgument,
                   "stats.size {} is too small; set it to sizeof(commMemStats_t)", stats->size);
    const MemoryStats held = use.communicator().stats();
    commMemStats_t full{};
    full.size = stats->size;
    full.hostBytes = held.host_bytes;
    full.pinnedBytes = held.pinned_bytes;
    full.channels = held.channels;
    full.sockets = held.sockets;
    full.threads = held.threads;
    std::memcpy(stats, &full, std::min(stats->size, sizeof full));
    return Status::ok();
  });
}

}  // extern "C"
