#include "tests/doubles/cuda/memory.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <iterator>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr size_t kRetired = 4096;  // freed ranges that stay reserved

std::byte* map(size_t bytes, int protection, int flags, int fd) {
  void* made = ::mmap(nullptr, bytes, protection, flags, fd, 0);
  return made == MAP_FAILED ? nullptr : static_cast<std::byte*>(made);
}

// Both mappings of device memory; false: no memory.
bool map_device(Region* region) {
  region->mapped = whole_pages(region->bytes);
  region->base = map(region->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  region->shadow = map(region->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd);
  return region->base != nullptr && region->shadow != nullptr;
}

uint64_t random_token() {
  uint64_t token = 0;
  if (::getrandom(&token, sizeof token, 0) != sizeof token) die("no random numbers");
  return token;
}

}  // namespace

size_t whole_pages(size_t bytes) {
  static const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

Chunk::~Chunk() {
  if (fd >= 0) ::close(fd);
}

// What programs see of it (base) stays reserved: Memory::retire.
Region::~Region() {
  if (kind == Kind::kMapped) return;  // its reservation has both
  if (on_device() && shadow != nullptr) ::munmap(shadow, mapped);
  if (fd >= 0) ::close(fd);
}

RegionRef Memory::add_device(size_t bytes, int ordinal, Context* context) {
  auto made = std::make_shared<Region>();
  made->bytes = bytes;
  made->ordinal = ordinal;
  made->context = context;
  made->token = random_token();
  made->fd = ::memfd_create(memory_name(made->token).c_str(), MFD_CLOEXEC);
  if (made->fd < 0) return nullptr;
  if (::ftruncate(made->fd, static_cast<off_t>(whole_pages(bytes))) != 0) return nullptr;
  if (!map_device(made.get())) return nullptr;
  live_[made->base] = made;
  return made;
}

RegionRef Memory::add_imported(int fd, size_t bytes, int ordinal, uint64_t token,
                               Context* context) {
  auto made = std::make_shared<Region>();
  made->kind = Region::Kind::kImported;
  made->bytes = bytes;
  made->fd = fd;
  made->ordinal = ordinal;
  made->token = token;
  made->context = context;
  made->opened = 1;
  if (!map_device(made.get())) return nullptr;
  live_[made->base] = made;
  return made;
}

RegionRef Memory::add_host(Region::Kind kind, size_t bytes, Context* context) {
  auto made = std::make_shared<Region>();
  made->kind = kind;
  made->bytes = bytes;
  made->mapped = whole_pages(bytes);
  made->base = map(made->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (made->base == nullptr) return nullptr;
  made->shadow = made->base;
  made->context = context;
  made->ordinal = context->ordinal;
  live_[made->base] = made;
  return made;
}

RegionRef Memory::add_registered(void* base, size_t bytes, bool portable, Context* context) {
  auto made = std::make_shared<Region>();
  made->kind = Region::Kind::kRegistered;
  made->bytes = bytes;
  made->base = static_cast<std::byte*>(base);
  made->shadow = made->base;
  made->context = context;
  made->ordinal = context->ordinal;
  made->portable = portable;
  live_[made->base] = made;
  return made;
}

std::byte* Memory::reserve(size_t bytes, size_t alignment) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  // More than asked for, so that the part that is used can be aligned.
  std::byte* base = map(bytes + alignment, PROT_NONE, kFlags, -1);
  std::byte* shadow = map(bytes, PROT_NONE, kFlags, -1);
  if (base == nullptr || shadow == nullptr) return nullptr;
  const size_t over = number_of(base) % alignment;
  const size_t skip = over == 0 ? 0 : alignment - over;
  if (skip > 0) ::munmap(base, skip);
  ::munmap(base + skip + bytes, alignment - skip);
  base += skip;
  reserved_[base] = {base, shadow, bytes};
  return base;
}

bool Memory::free_reserved(const void* base, size_t bytes) {
  const auto found = reserved_.find(static_cast<const std::byte*>(base));
  if (found == reserved_.end() || found->second.bytes != bytes || meeting(base, bytes) != nullptr)
    return false;
  ::munmap(found->second.shadow, bytes);
  Region gone;
  gone.kind = Region::Kind::kManaged;
  gone.base = found->second.base;
  gone.mapped = bytes;
  retire(gone);
  reserved_.erase(found);
  return true;
}

const Reservation* Memory::reservation_of(const void* pointer) const {
  const auto* at = static_cast<const std::byte*>(pointer);
  const auto after = reserved_.upper_bound(at);
  if (after == reserved_.begin()) return nullptr;
  const Reservation& before = std::prev(after)->second;
  return at < before.base + before.bytes ? &before : nullptr;
}

RegionRef Memory::map_chunk(const Reservation& at, std::byte* base,
                            const std::shared_ptr<Chunk>& chunk) {
  std::byte* shadow = at.shadow + (base - at.base);
  if (::mmap(shadow, chunk->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, chunk->fd, 0) ==
      MAP_FAILED)
    return nullptr;
  auto made = std::make_shared<Region>();
  made->kind = Region::Kind::kMapped;
  made->base = base;
  made->shadow = shadow;
  made->bytes = made->mapped = chunk->bytes;
  made->ordinal = chunk->ordinal;
  made->token = random_token();
  made->chunk = chunk;
  live_[base] = made;
  return made;
}

void Memory::remove(const RegionRef& region) {
  const RegionRef held = region;
  held->freed = true;
  live_.erase(held->base);
  if (held->kind == Region::Kind::kMapped) {  // an empty part of its reservation again
    (void)::mmap(held->shadow, held->mapped, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return;
  }
  if (held->kind != Region::Kind::kRegistered) retire(*held);
}

void Memory::retire(const Region& region) {
  // New pages without access also give the memory back.
  (void)::mmap(region.base, region.mapped, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  retired_.push_back({region.base, region.mapped});
  if (retired_.size() <= kRetired) return;
  ::munmap(retired_.front().base, retired_.front().mapped);
  retired_.pop_front();
}

RegionRef Memory::find(const void* pointer) const { return meeting(pointer, 1); }

RegionRef Memory::meeting(const void* base, size_t bytes) const {
  const auto* begin = static_cast<const std::byte*>(base);
  const auto after = live_.lower_bound(begin + bytes);
  if (after == live_.begin()) return nullptr;
  const RegionRef& before = std::prev(after)->second;
  return begin < before->base + before->bytes ? before : nullptr;
}

bool Memory::was_freed(const void* pointer) const {
  if (reservation_of(pointer) != nullptr) return find(pointer) == nullptr;
  for (const Retired& each : retired_) {
    if (pointer >= each.base && pointer < each.base + each.mapped) return true;
  }
  return false;
}

CUresult reach(State& state, Context* context, const void* pointer, size_t bytes, Reach* out,
               bool copies) {
  const RegionRef region = state.memory.find(pointer);
  const auto* at = static_cast<const std::byte*>(pointer);
  if (region == nullptr) {
    if (state.memory.was_freed(pointer))
      return misuse(context, kIllegalAddress, "%zu bytes at %p were freed before they are used",
                    bytes, pointer);
    if (state.memory.meeting(pointer, bytes) != nullptr)
      return misuse(context, kIllegalAddress,
                    "%zu bytes at %p begin before the memory of the driver that they end in", bytes,
                    pointer);
    *out = {const_cast<std::byte*>(at), nullptr};
    return kSuccess;
  }
  const size_t offset = static_cast<size_t>(at - region->base);
  // What is mapped side by side in one reservation is one range.
  size_t there = region->bytes - offset;
  for (RegionRef next = region; region->kind == Region::Kind::kMapped && there < bytes;) {
    next = state.memory.find(at + there);
    if (next == nullptr || next->kind != Region::Kind::kMapped ||
        state.memory.reservation_of(at) != state.memory.reservation_of(next->base) ||
        (context != nullptr && next->allowed.count(context->ordinal) == 0))
      break;
    there += next->bytes;
  }
  if (bytes > there)
    return misuse(context, kIllegalAddress, "%zu bytes at %p reach past the end of their %zu bytes",
                  bytes, pointer, region->bytes);
  if (context != nullptr) {
    const bool may = region->kind == Region::Kind::kImported ? region->context == context
                     : region->kind == Region::Kind::kMapped
                         ? region->allowed.count(context->ordinal) != 0
                     : region->on_device() ? copies || region->ordinal == context->ordinal ||
                                                 context->peers.count(region->ordinal) != 0
                                           : region->portable || region->context == context;
    if (!may)
      return misuse(context, kIllegalAddress,
                    "GPU %d may not touch %p of GPU %d: peer access is not enabled, or the memory "
                    "was opened or registered for another context",
                    context->ordinal, pointer, region->ordinal);
  }
  *out = {region->shadow + offset, region};
  return kSuccess;
}

}  // namespace libcomm::cuda::doubled
