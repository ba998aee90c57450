// cuMem*, cuPointer*: allocation, registration and attributes of memory.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/doubles/cuda/export.h"
#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr unsigned kAttachGlobal = 1, kAttachHost = 2;  // cuMemAllocManaged
constexpr int kDmabufHandle = 1;                        // CUmemRangeHandleType

CUresult alloc_host(const char* name, Region::Kind kind, void** out, size_t bytes) {
  return call(name, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || bytes == 0) return kInvalidValue;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    const RegionRef made = state.memory.add_host(kind, bytes, context);
    if (made == nullptr) return kOutOfMemory;
    *out = made->base;
    return kSuccess;
  });
}

// `kinds` says which a call may end. As on a GPU, it waits for all work of the context first.
template <typename Kinds>
CUresult release(const char* name, const void* pointer, CUresult other, Kinds kinds) {
  return call(name, Needs::kContext, [&](State& state, Lock& lock, Context*) -> CUresult {
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    const RegionRef found = state.memory.find(pointer);
    if (found == nullptr && state.memory.was_freed(pointer))
      return misuse(nullptr, other, "%p was freed before", pointer);
    if (found == nullptr || found->base != pointer || !kinds(found->kind) ||
        found->context == nullptr)
      return other;
    if (const CUresult done = wait_for_all(state, lock, *found->context); done != kSuccess)
      return done;
    if (found->freed) return misuse(nullptr, other, "%p is freed twice", pointer);
    state.memory.remove(found);
    return kSuccess;
  });
}

}  // namespace

bool has_room(const State& state, int ordinal, size_t bytes) {
  if (state.settings.memory_kib < 0) return true;
  size_t used = 0;
  for (const auto& [base, region] : state.memory.live()) {
    if (region->kind == Region::Kind::kDevice && region->ordinal == ordinal) used += region->bytes;
  }
  used += chunk_bytes(state, ordinal);
  return used + bytes <= static_cast<size_t>(state.settings.memory_kib) << 10;
}

int export_memory(State& state, const void* pointer, size_t bytes) {
  const RegionRef found = state.memory.find(pointer);
  if (found == nullptr || !found->on_device()) return -1;
  const size_t offset = static_cast<size_t>(static_cast<const std::byte*>(pointer) - found->base);
  if (bytes > found->mapped - offset) return -1;
  // Of its own, since a duplicate would share the file offset.
  const std::string name =
      "/proc/self/fd/" + std::to_string(found->chunk != nullptr ? found->chunk->fd : found->fd);
  const int fd = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) (void)::lseek(fd, static_cast<off_t>(offset), SEEK_SET);
  return fd;
}

CUresult cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || bytes == 0) return kInvalidValue;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    if (!has_room(state, context->ordinal, bytes)) return kOutOfMemory;
    const RegionRef made = state.memory.add_device(bytes, context->ordinal, context);
    if (made == nullptr) return kOutOfMemory;
    *out = number_of(made->base);
    return kSuccess;
  });
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  return release(__func__, pointer_of(pointer), kInvalidValue, [](Region::Kind kind) {
    return kind == Region::Kind::kDevice || kind == Region::Kind::kManaged;
  });
}

CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned flags) {
  // The third flag, write-combined, changes nothing that a program could see.
  if (flags > (kPortable | kDeviceMap | 4)) return kInvalidValue;
  return alloc_host(__func__, Region::Kind::kPinned, out, bytes);
}

CUresult cuMemAllocHost_v2(void** out, size_t bytes) {
  return alloc_host(__func__, Region::Kind::kPinned, out, bytes);
}

CUresult cuMemAllocManaged(CUdeviceptr* out, size_t bytes, unsigned flags) {
  if (out == nullptr || (flags != kAttachGlobal && flags != kAttachHost)) return kInvalidValue;
  void* made = nullptr;
  const CUresult result = alloc_host(__func__, Region::Kind::kManaged, &made, bytes);
  if (result == kSuccess) *out = number_of(made);
  return result;
}

CUresult cuMemFreeHost(void* pointer) {
  return release(__func__, pointer, kInvalidValue,
                 [](Region::Kind kind) { return kind == Region::Kind::kPinned; });
}

CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (pointer == nullptr || bytes == 0 || flags > (kPortable | kDeviceMap)) return kInvalidValue;
    if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
    if (state.memory.meeting(pointer, bytes) != nullptr) return kAlreadyRegistered;
    (void)state.memory.add_registered(pointer, bytes, (flags & kPortable) != 0, context);
    return kSuccess;
  });
}

CUresult cuMemHostUnregister(void* pointer) {
  return release(__func__, pointer, kNotRegistered,
                 [](Region::Kind kind) { return kind == Region::Kind::kRegistered; });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* pointer, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr || flags != 0) return kInvalidValue;
    const RegionRef found = state.memory.find(pointer);
    if (found == nullptr || found->on_device()) return kInvalidValue;
    *out = number_of(pointer);
    return kSuccess;
  });
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    const RegionRef found = state.memory.find(pointer_of(pointer));
    if (found == nullptr || found->kind == Region::Kind::kRegistered) return kNotFound;
    if (base != nullptr) *base = number_of(found->base);
    if (bytes != nullptr) *bytes = found->bytes;
    return kSuccess;
  });
}

CUresult cuMemGetHandleForAddressRange(void* out, CUdeviceptr pointer, size_t bytes, int type,
                                       unsigned long long flags) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (!state.settings.dmabuf) return kNotSupported;
    if (type != kDmabufHandle || flags != 0 || pointer != whole_pages(pointer) ||
        bytes != whole_pages(bytes))
      return kInvalidValue;
    const int fd = export_memory(state, pointer_of(pointer), bytes);
    if (fd < 0) return kInvalidValue;
    *static_cast<int*>(out) = fd;
    return kSuccess;
  });
}

CUresult cuPointerGetAttribute(void* out, int attribute, CUdeviceptr pointer) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const RegionRef found = state.memory.find(pointer_of(pointer));
    if (out == nullptr || found == nullptr) return kInvalidValue;
    const bool managed = found->kind == Region::Kind::kManaged;
    switch (attribute) {
      case kAttributeContext:
        std::memcpy(out, &found->context, sizeof found->context);
        return kSuccess;
      case kAttributeMemoryType:
        *static_cast<unsigned*>(out) = found->on_device() || managed ? kTypeDevice : kTypeHost;
        return kSuccess;
      case kAttributeBufferId:
        std::memcpy(out, &found->token, sizeof found->token);
        return kSuccess;
      case kAttributeIsManaged:
        *static_cast<int*>(out) = managed ? 1 : 0;
        return kSuccess;
      case kAttributeOrdinal:
        *static_cast<int*>(out) = found->ordinal;
        return kSuccess;
      case kAttributeRangeStart:
      case kAttributeRangeSize: {
        const Reservation* at = state.memory.reservation_of(pointer_of(pointer));
        if (attribute == kAttributeRangeStart)
          *static_cast<CUdeviceptr*>(out) = number_of(at != nullptr ? at->base : found->base);
        else
          *static_cast<size_t*>(out) = at != nullptr ? at->bytes : found->bytes;
        return kSuccess;
      }
      case kAttributeHandleTypes:
        *static_cast<uint64_t*>(out) =
            found->chunk != nullptr ? static_cast<uint64_t>(found->chunk->handle_types) : 0;
        return kSuccess;
      default:
        return kInvalidValue;
    }
  });
}

CUresult cuPointerSetAttribute(const void* value, int attribute, CUdeviceptr pointer) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const bool sync = attribute == kAttributeSyncMemops && *static_cast<const int*>(value) == 1;
    const RegionRef found = state.memory.find(pointer_of(pointer));
    return sync && found != nullptr && found->on_device() ? kSuccess : kInvalidValue;
  });
}

}  // namespace libcomm::cuda::doubled
