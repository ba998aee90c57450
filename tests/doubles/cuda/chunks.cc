// cuMemCreate, cuMemAddress*, cuMemMap and their kin: memory apart from its addresses, and its
// descriptors and fabric handles.
//
// A chunk is a memfd whose name says which GPU has it. A descriptor of it is one of the memfd, that
// must not be opened again through /proc: NVIDIA's driver's cannot be. A fabric handle names the
// descriptor of the process that has the chunk.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr size_t kGranularity = 2 << 20;
constexpr const char kNameFormat[] = "cuda-double-chunk-%d";

bool is_valid(const State& state, const CUmemAllocationProp& wanted) {
  const int known = kDescriptorHandle | (state.settings.fabric != 0 ? kFabricHandle : 0);
  return wanted.type == kPinnedChunk && (wanted.handle_types & ~known) == 0 &&
         wanted.location.type == kOnDevice && wanted.location.id >= 0 &&
         wanted.location.id < state.settings.devices && wanted.windows_only == nullptr;
}

// Values of the setting "fabric".
constexpr int kCreateNotPermitted = 2, kImportNotPermitted = 3;

constexpr uint64_t kMagic = 0x6369726261666475;
struct FabricHandle {
  uint64_t magic, inode;
  int32_t pid, fd;
};
static_assert(sizeof(FabricHandle) <= sizeof(CUmemFabricHandle));

// The GPU of the chunk that the descriptor is of; -1: of none.
int gpu_of(int fd) {
  char target[128] = "";
  const std::string own = "/proc/self/fd/" + std::to_string(fd);
  int ordinal = -1;
  if (::readlink(own.c_str(), target, sizeof target - 1) < 0 ||
      std::sscanf(target, (std::string("/memfd:") + kNameFormat).c_str(), &ordinal) != 1)
    return -1;
  return ordinal;
}

// A descriptor of its own; -1: the handle is of no chunk, or of one that is gone.
int open_fabric(const void* handle) {
  FabricHandle exported;
  std::memcpy(&exported, handle, sizeof exported);
  if (exported.magic != kMagic) return -1;
  const std::string path =
      "/proc/" + std::to_string(exported.pid) + "/fd/" + std::to_string(exported.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat about;
  if (fd >= 0 && ::fstat(fd, &about) == 0 && about.st_ino == exported.inode && gpu_of(fd) >= 0)
    return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

CUresult export_fabric(const Chunk& chunk, void* out) {
  struct stat about;
  if (::fstat(chunk.fd, &about) != 0) return kOutOfMemory;
  const FabricHandle handle{kMagic, about.st_ino, ::getpid(), chunk.fd};
  std::memset(out, 0, sizeof(CUmemFabricHandle));
  std::memcpy(out, &handle, sizeof handle);
  return kSuccess;
}

// For the calls that a GPU without virtual memory refuses.
template <typename Body>
CUresult managing(const char* name, Body body) {
  return call(name, Needs::kDriver, [&](State& state, Lock& lock, Context*) -> CUresult {
    if (!state.settings.chunks) return kNotSupported;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    return body(state, lock);
  });
}

void add_handle(State& state, const std::shared_ptr<Chunk>& chunk, CUmemHandle* out) {
  if (chunk->handle == 0) chunk->handle = ++state.chunks_made;
  ++chunk->references;
  state.chunks[chunk->handle] = chunk;
  *out = chunk->handle;
}

std::shared_ptr<Chunk> chunk_of(const State& state, CUmemHandle handle) {
  const auto found = state.chunks.find(handle);
  return found != state.chunks.end() ? found->second : nullptr;
}

// The mappings that make up exactly this range; empty: they do not.
std::vector<RegionRef> mapped_in(const State& state, CUdeviceptr pointer, size_t bytes) {
  std::vector<RegionRef> found;
  for (size_t done = 0; done < bytes;) {
    const RegionRef each = state.memory.find(pointer_of(pointer + done));
    if (each == nullptr || each->kind != Region::Kind::kMapped ||
        each->base != pointer_of(pointer + done) || each->bytes > bytes - done)
      return {};
    found.push_back(each);
    done += each->bytes;
  }
  return found;
}

}  // namespace

// -1: of all GPUs.
uint64_t chunk_bytes(const State& state, int ordinal) {
  std::set<const Chunk*> all;
  for (const auto& [handle, chunk] : state.chunks) all.insert(chunk.get());
  for (const auto& [base, region] : state.memory.live())
    if (region->chunk != nullptr) all.insert(region->chunk.get());
  uint64_t bytes = 0;
  for (const Chunk* each : all)
    if (ordinal < 0 || each->ordinal == ordinal) bytes += each->bytes;
  return bytes;
}

CUresult cuMemGetAllocationGranularity(size_t* out, const CUmemAllocationProp* wanted, int which) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    if (out == nullptr || wanted == nullptr || !is_valid(state, *wanted) || which < 0 || which > 1)
      return kInvalidValue;
    *out = kGranularity;
    return kSuccess;
  });
}

CUresult cuMemAddressReserve(CUdeviceptr* out, size_t bytes, size_t alignment, CUdeviceptr,
                             unsigned long long flags) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    if (out == nullptr || bytes == 0 || bytes % kGranularity != 0 || flags != 0 ||
        (alignment & (alignment - 1)) != 0)
      return kInvalidValue;
    std::byte* base = state.memory.reserve(bytes, std::max(alignment, kGranularity));
    if (base == nullptr) return kOutOfMemory;
    *out = number_of(base);
    return kSuccess;
  });
}

CUresult cuMemAddressFree(CUdeviceptr pointer, size_t bytes) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    return state.memory.free_reserved(pointer_of(pointer), bytes) ? kSuccess : kInvalidValue;
  });
}

CUresult cuMemCreate(CUmemHandle* out, size_t bytes, const CUmemAllocationProp* wanted,
                     unsigned long long flags) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    if (out == nullptr || bytes == 0 || bytes % kGranularity != 0 || wanted == nullptr ||
        !is_valid(state, *wanted) || flags != 0)
      return kInvalidValue;
    if ((wanted->handle_types & kFabricHandle) != 0 && state.settings.fabric == kCreateNotPermitted)
      return kNotPermitted;
    if (!has_room(state, wanted->location.id, bytes)) return kOutOfMemory;
    auto made = std::make_shared<Chunk>();
    char name[64];
    std::snprintf(name, sizeof name, kNameFormat, wanted->location.id);
    made->fd = ::memfd_create(name, MFD_CLOEXEC);
    if (made->fd < 0 || ::ftruncate(made->fd, static_cast<off_t>(bytes)) != 0) return kOutOfMemory;
    made->bytes = bytes;
    made->ordinal = wanted->location.id;
    made->handle_types = wanted->handle_types;
    add_handle(state, made, out);
    return kSuccess;
  });
}

CUresult cuMemRetainAllocationHandle(CUmemHandle* out, void* pointer) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const RegionRef found = state.memory.find(pointer);
    if (out == nullptr || found == nullptr || found->chunk == nullptr) return kInvalidValue;
    add_handle(state, found->chunk, out);
    return kSuccess;
  });
}

CUresult cuMemRelease(CUmemHandle handle) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const std::shared_ptr<Chunk> chunk = chunk_of(state, handle);
    if (chunk == nullptr)
      return misuse(nullptr, kInvalidValue, "%llu is no handle of memory", handle);
    if (--chunk->references == 0) state.chunks.erase(handle);
    return kSuccess;
  });
}

CUresult cuMemExportToShareableHandle(void* out, CUmemHandle handle, int type,
                                      unsigned long long flags) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const std::shared_ptr<Chunk> chunk = chunk_of(state, handle);
    if (out == nullptr || chunk == nullptr || flags != 0 ||
        (type != kDescriptorHandle && type != kFabricHandle) || (chunk->handle_types & type) == 0)
      return kInvalidValue;
    if (type == kFabricHandle) return export_fabric(*chunk, out);
    if (!state.settings.descriptors) return kNotSupported;
    const int fd = ::fcntl(chunk->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return kOutOfMemory;
    *static_cast<int*>(out) = fd;
    return kSuccess;
  });
}

CUresult cuMemImportFromShareableHandle(CUmemHandle* out, void* shared, int type) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    int fd = -1;
    if (type == kFabricHandle && state.settings.fabric != 0) {
      if (state.settings.fabric == kImportNotPermitted) return kNotPermitted;
      fd = shared != nullptr ? open_fabric(shared) : -1;
      if (fd < 0) return kInvalidValue;
      ++state.fabric_imports;
    } else {
      const int given = static_cast<int>(reinterpret_cast<intptr_t>(shared));
      if (type != kDescriptorHandle || gpu_of(given) < 0) return kInvalidValue;
      if (!state.settings.descriptors) return kNotSupported;
      fd = ::fcntl(given, F_DUPFD_CLOEXEC, 0);
      if (fd < 0) return kOutOfMemory;
    }
    auto made = std::make_shared<Chunk>();
    made->fd = fd;
    struct stat size;
    if (out == nullptr || ::fstat(fd, &size) != 0 || gpu_of(fd) >= state.settings.devices)
      return kInvalidValue;
    made->bytes = static_cast<size_t>(size.st_size);
    made->ordinal = gpu_of(fd);
    add_handle(state, made, out);
    return kSuccess;
  });
}

CUresult cuMemMap(CUdeviceptr pointer, size_t bytes, size_t offset, CUmemHandle handle,
                  unsigned long long flags) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const std::shared_ptr<Chunk> chunk = chunk_of(state, handle);
    const Reservation* at = state.memory.reservation_of(pointer_of(pointer));
    if (chunk == nullptr || at == nullptr || bytes != chunk->bytes || offset != 0 || flags != 0 ||
        pointer % kGranularity != 0)
      return kInvalidValue;
    auto* const base = static_cast<std::byte*>(pointer_of(pointer));
    if (bytes > static_cast<size_t>(at->base + at->bytes - base) ||
        state.memory.meeting(base, bytes) != nullptr)
      return kInvalidValue;
    return state.memory.map_chunk(*at, base, chunk) != nullptr ? kSuccess : kOutOfMemory;
  });
}

// As freeing does, it waits for all work: the mappings may be used by it.
CUresult cuMemUnmap(CUdeviceptr pointer, size_t bytes) {
  return managing(__func__, [&](State& state, Lock& lock) -> CUresult {
    if (mapped_in(state, pointer, bytes).empty()) return kInvalidValue;
    for (Context& each : state.contexts)
      if (each.active()) (void)wait_for_all(state, lock, each);
    const std::vector<RegionRef> found = mapped_in(state, pointer, bytes);
    for (const RegionRef& each : found) state.memory.remove(each);
    return found.empty() ? kInvalidValue : kSuccess;
  });
}

CUresult cuMemSetAccess(CUdeviceptr pointer, size_t bytes, const CUmemAccessDesc* who,
                        size_t count) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const std::vector<RegionRef> found = mapped_in(state, pointer, bytes);
    if (found.empty() || who == nullptr || count == 0) return kInvalidValue;
    for (size_t i = 0; i < count; ++i) {
      const int gpu = who[i].location.id;
      if (who[i].location.type != kOnDevice || (who[i].flags != 0 && who[i].flags != kReadWrite))
        return kInvalidValue;
      if (gpu < 0 || gpu >= state.settings.devices) return kInvalidDevice;
      for (const RegionRef& each : found) {
        if (gpu != each->ordinal && !state.settings.peers[gpu][each->ordinal])
          return kPeerUnsupported;
        if (who[i].flags != 0)
          each->allowed.insert(gpu);
        else
          each->allowed.erase(gpu);
      }
    }
    return kSuccess;
  });
}

CUresult cuMemGetAccess(unsigned long long* out, const CUmemLocation* who, CUdeviceptr pointer) {
  return managing(__func__, [&](State& state, Lock&) -> CUresult {
    const RegionRef found = state.memory.find(pointer_of(pointer));
    if (out == nullptr || who == nullptr || who->type != kOnDevice || found == nullptr ||
        found->chunk == nullptr)
      return kInvalidValue;
    *out = found->allowed.count(who->id) != 0 ? kReadWrite : 0;
    return kSuccess;
  });
}

}  // namespace libcomm::cuda::doubled
