#include "transports/shm/layout.h"

#include <algorithm>

namespace libcomm::shm {
namespace {

constexpr size_t kRegionBytes = size_t{64} << 20;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Layout Layout::of(size_t members, size_t buffer_bytes, size_t part_bytes) {
  Layout layout;
  layout.members = members;
  layout.part_bytes = part_bytes;
  layout.slot_bytes = std::max(kLeastSlotBytes, buffer_bytes / kMaxSlots / kLine * kLine);
  layout.slots = std::clamp<size_t>(buffer_bytes / layout.slot_bytes, 1, kMaxSlots);
  return layout;
}

size_t Layout::parts_offset() const {
  return round_up(directory_offset() + members * members * kMaxLanes * sizeof(uint32_t), kPage);
}

size_t Layout::extent_bytes() const {
  return round_up(sizeof(ChannelHeader) + kNotes * sizeof(Note) + ring_bytes(), kPage);
}

size_t Layout::extents_per_region() const {
  return std::max<size_t>(1, kRegionBytes / extent_bytes());
}

}  // namespace libcomm::shm
