#include "transports/rdma/registration.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

bool may_lock_any_memory() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY) return true;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  return ::syscall(SYS_capget, &header, sets) == 0 &&
         (sets[0].effective & (1u << CAP_IPC_LOCK)) != 0;
}

}  // namespace

size_t brief_limit(size_t wanted) { return may_lock_any_memory() ? wanted : 0; }

std::shared_ptr<const Registration> RegistrationCache::find(const void* address, size_t bytes,
                                                            Use use) {
  if (!memory_) return nullptr;
  Held held = find_any(address, bytes);
  if (held && held->on_device && use == Use::kSend && !gpu_->reads()) return nullptr;
  return held;
}

RegistrationCache::Held RegistrationCache::find_any(const void* address, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (memory_->ended() != ended_) drop_ended_locked();
  if (Held held = look_up(static_cast<const std::byte*>(address), bytes)) {
    ++hits_;
    return held;
  }
  UserMemory::Range range;
  if (!memory_->find(address, bytes, &range) || unregistrable_.contains(range.id)) return nullptr;
  if (range.brief && (range.bytes > most_brief_ || *brief_bytes_ > most_brief_ - range.bytes))
    return nullptr;
  ++misses_;
  return add(range);
}

// From the last interval that begins at or before `begin` to the first that could reach it.
RegistrationCache::Held RegistrationCache::look_up(const std::byte* begin, size_t bytes) const {
  for (auto at = intervals_.upper_bound(begin); at != intervals_.begin();) {
    --at;
    if (at->second->holds(begin, bytes)) return at->second;
    if (static_cast<size_t>(begin - at->first) >= longest_) break;
  }
  return nullptr;
}

Status RegistrationCache::make(const UserMemory::Range& range, Registration* made) {
  if (gpu_ && gpu_->on_device(range.base)) {
    made->on_device = true;
    COMM_ASSIGN(GpuDirect::Registered registered, gpu_->make(nics_, range.base, range.bytes));
    made->needs_flush = registered.needs_flush;
    made->mrs = std::move(registered.mrs);
    return Status::ok();
  }
  for (const std::shared_ptr<Nic>& nic : nics_) {
    COMM_ASSIGN(Mr mr, nic->register_memory(range.base, range.bytes, true));
    made->mrs.push_back(std::move(mr));
  }
  return Status::ok();
}

RegistrationCache::Held RegistrationCache::add(const UserMemory::Range& range) {
  auto made = std::make_shared<Registration>();
  made->id = range.id;
  made->base = range.base;
  if (const Status status = make(range, made.get()); !status) {
    const std::string text =
        fmt::format("{}; this memory is sent through staging buffers", status.message());
    if ((range.brief || made->on_device) && std::exchange(warned_, true)) {
      log_info(Subsys::kNet, "{}", text);
    } else {
      log_warn("{}", text);
    }
    unregistrable_.insert(range.id);
    return nullptr;
  }
  made->bytes = range.bytes;
  if (range.brief) {
    *brief_bytes_ += range.bytes;
    made->counted = brief_bytes_;
  }
  intervals_.emplace(range.base, made);
  longest_ = std::max(longest_, range.bytes);
  return made;
}

void RegistrationCache::drop_ended() {
  if (!memory_) return;
  const std::lock_guard lock(mutex_);
  if (memory_->ended() != ended_) drop_ended_locked();
}

void RegistrationCache::drop_ended_locked() {
  ended_ = memory_->ended();
  std::erase_if(intervals_, [&](const auto& entry) { return !memory_->is_live(entry.second->id); });
  std::erase_if(unregistrable_, [&](uint64_t id) { return !memory_->is_live(id); });
  longest_ = 0;
  for (const auto& [base, held] : intervals_) longest_ = std::max(longest_, held->bytes);
}

uint64_t RegistrationCache::hits() const {
  const std::lock_guard lock(mutex_);
  return hits_;
}
uint64_t RegistrationCache::misses() const {
  const std::lock_guard lock(mutex_);
  return misses_;
}
size_t RegistrationCache::held() const {
  const std::lock_guard lock(mutex_);
  return intervals_.size();
}

}  // namespace libcomm::rdma
