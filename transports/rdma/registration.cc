#include "transports/rdma/registration.h"

#include "src/base/log.h"

namespace libcomm::rdma {

std::shared_ptr<const Registration> RegistrationCache::find(const void* address, size_t bytes) {
  if (!memory_) return nullptr;
  const std::lock_guard lock(mutex_);
  if (memory_->ended() != ended_) drop_ended();
  const auto* begin = static_cast<const std::byte*>(address);
  if (auto after = intervals_.upper_bound(begin); after != intervals_.begin()) {
    const Registration& candidate = *std::prev(after)->second;
    if (begin + bytes <= candidate.base + candidate.bytes) {
      ++hits_;
      return std::prev(after)->second;
    }
  }
  UserMemory::Range range;
  if (!memory_->find(address, bytes, &range) || unregistrable_.contains(range.id)) return nullptr;
  ++misses_;
  return add(range);
}

std::shared_ptr<const Registration> RegistrationCache::add(const UserMemory::Range& range) {
  auto made = std::make_shared<Registration>();
  made->id = range.id;
  made->base = range.base;
  made->bytes = range.bytes;
  for (const std::shared_ptr<Nic>& nic : nics_) {
    auto mr = nic->register_memory(range.base, range.bytes, true);
    if (!mr) {
      log_warn("{}; this memory is sent through staging buffers", mr.status().message());
      unregistrable_.insert(range.id);
      return nullptr;
    }
    made->mrs.push_back(*std::move(mr));
  }
  // Ranges that overlap a registered one (registered twice by the user) stay as they are.
  const auto after = intervals_.lower_bound(range.base);
  const bool overlaps_next = after != intervals_.end() && after->first < range.base + range.bytes;
  const bool overlaps_previous =
      after != intervals_.begin() &&
      std::prev(after)->second->base + std::prev(after)->second->bytes > range.base;
  if (!overlaps_next && !overlaps_previous) intervals_[range.base] = made;
  return made;
}

void RegistrationCache::drop_ended() {
  ended_ = memory_->ended();
  std::erase_if(intervals_, [&](const auto& entry) { return !memory_->is_live(entry.second->id); });
  std::erase_if(unregistrable_, [&](uint64_t id) { return !memory_->is_live(id); });
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
