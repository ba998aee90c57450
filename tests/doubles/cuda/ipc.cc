// cuIpc*: device memory of another process of this machine.
//
// A handle names the descriptor of the memory in the process that exports it; the name of the memfd
// there proves that it still is that memory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr uint64_t kMagic = 0x6c62756f64616475;

struct Exported {
  uint64_t magic, token, bytes;
  int32_t pid, fd, ordinal;
};
static_assert(sizeof(Exported) <= sizeof(CUipcMemHandle));

// Whether the descriptor, which was found at that place, is of that memory.
bool is_of(int fd, const Exported& exported) {
  char target[128];
  const std::string own = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(own.c_str(), target, sizeof target);
  const std::string wanted = "/memfd:" + memory_name(exported.token) + " (deleted)";
  struct stat size;
  return length >= 0 && std::string_view(target, static_cast<size_t>(length)) == wanted &&
         ::fstat(fd, &size) == 0 &&
         static_cast<size_t>(size.st_size) == whole_pages(exported.bytes);
}

// -1: the process has ended, or freed the memory.
int open_exported(const Exported& exported) {
  const std::string path =
      "/proc/" + std::to_string(exported.pid) + "/fd/" + std::to_string(exported.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0 || is_of(fd, exported)) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

CUresult cuIpcGetMemHandle(CUipcMemHandle* out, CUdeviceptr pointer) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    const RegionRef found = state.memory.find(pointer_of(pointer));
    // Only memory of cuMemAlloc, and by its base.
    if (out == nullptr || found == nullptr || found->kind != Region::Kind::kDevice ||
        found->context == nullptr || found->base != pointer_of(pointer))
      return kInvalidValue;
    const Exported exported{kMagic,     found->token, found->bytes,
                            ::getpid(), found->fd,    found->ordinal};
    *out = {};
    std::memcpy(out->reserved, &exported, sizeof exported);
    return kSuccess;
  });
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* out, CUipcMemHandle handle, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || flags != kLazyPeerAccess) return kInvalidValue;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    Exported exported;
    std::memcpy(&exported, handle.reserved, sizeof exported);
    const int ordinal = exported.ordinal;
    if (exported.magic != kMagic || ordinal < 0 || ordinal >= state.settings.devices ||
        exported.bytes == 0)
      return kInvalidHandle;
    if (exported.pid == ::getpid()) return kInvalidContext;
    if (ordinal != context->ordinal && !state.settings.peers[context->ordinal][ordinal])
      return kPeerUnsupported;
    for (const auto& [base, region] : state.memory.live()) {
      if (region->kind != Region::Kind::kImported || region->token != exported.token ||
          region->context != context)
        continue;
      ++region->opened;
      *out = number_of(region->base);
      return kSuccess;
    }
    const int fd = open_exported(exported);
    if (fd < 0) return kInvalidHandle;
    const RegionRef made =
        state.memory.add_imported(fd, exported.bytes, ordinal, exported.token, context);
    if (made == nullptr) return kMapFailed;
    *out = number_of(made->base);
    return kSuccess;
  });
}

CUresult cuIpcCloseMemHandle(CUdeviceptr pointer) {
  return call(__func__, Needs::kContext,
              [&](State& state, Lock& lock, Context* context) -> CUresult {
                if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
                const RegionRef found = state.memory.find(pointer_of(pointer));
                if (found == nullptr || found->kind != Region::Kind::kImported ||
                    found->base != pointer_of(pointer) || found->context != context)
                  return kInvalidValue;
                if (--found->opened > 0) return kSuccess;
                const CUresult done = wait_for_all(state, lock, *context);
                if (done == kSuccess) state.memory.remove(found);
                return done;
              });
}

}  // namespace libcomm::cuda::doubled
