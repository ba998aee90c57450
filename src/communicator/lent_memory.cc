#include "src/communicator/lent_memory.h"

#include <algorithm>

#include "transports/shm/memory.h"

namespace libcomm {
namespace {

// Segments and registrations count on their own; the lowest bit tells them apart.
constexpr uint64_t id_of_segment(uint64_t segment) { return segment << 1; }
constexpr uint64_t id_of_registration(uint64_t number) { return number << 1 | 1; }

}  // namespace

void LentMemory::add(const void* key, void* base, size_t bytes) {
  const std::lock_guard lock(mutex_);
  ranges_[key] = {id_of_registration(++last_id_), static_cast<std::byte*>(base), bytes, false};
}

void LentMemory::remove(const void* key) {
  const std::lock_guard lock(mutex_);
  if (ranges_.erase(key) > 0) removed_.fetch_add(1, std::memory_order_release);
}

uint64_t LentMemory::add_brief(std::byte* base, size_t bytes) {
  const std::lock_guard lock(mutex_);
  brief_.push_back({id_of_registration(++last_id_), base, bytes, true});
  return brief_.back().id;
}

void LentMemory::remove_brief(uint64_t id) {
  const std::lock_guard lock(mutex_);
  if (std::erase_if(brief_, [id](const Range& range) { return range.id == id; }) > 0)
    removed_.fetch_add(1, std::memory_order_release);
}

bool LentMemory::find(const void* address, size_t bytes, Range* range) const {
  if (const auto segment = find_segment(address, bytes)) {
    range->id = id_of_segment(segment->segment);
    range->base = segment_address(segment->segment, &range->bytes);
    range->brief = false;
    return range->base != nullptr;
  }
  const auto* begin = static_cast<const std::byte*>(address);
  const auto holds = [&](const Range& each) {
    return begin >= each.base && begin + bytes <= each.base + each.bytes;
  };
  const std::lock_guard lock(mutex_);
  for (const auto& [key, each] : ranges_) {
    if (!holds(each)) continue;
    *range = each;
    return true;
  }
  const auto brief = std::find_if(brief_.begin(), brief_.end(), holds);
  if (brief == brief_.end()) return false;
  *range = *brief;
  return true;
}

bool LentMemory::is_live(uint64_t id) const {
  if ((id & 1) == 0) {
    size_t bytes = 0;
    return segment_address(id >> 1, &bytes) != nullptr;
  }
  const std::lock_guard lock(mutex_);
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [id](const auto& entry) { return entry.second.id == id; }) ||
         std::any_of(brief_.begin(), brief_.end(),
                     [id](const Range& range) { return range.id == id; });
}

uint64_t LentMemory::ended() const {
  return segments_freed() + removed_.load(std::memory_order_acquire);
}

}  // namespace libcomm
