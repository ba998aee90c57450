#include "transports/shm/peer_segments.h"

#include <sys/mman.h>

#include <algorithm>
#include <climits>

#include "transports/pass_fd.h"
#include "transports/shm/memory.h"

namespace libcomm::shm {
namespace {

struct EntryValue {
  uint64_t fd;
  uint64_t bytes;
};

// The owner may be rewriting an entry: it clears `segment` first and sets it last.
bool read_entry(RankControl& control, uint64_t segment, EntryValue* value) {
  for (SegmentEntry& entry : control.segments[segment % kSegmentSets]) {
    if (entry.segment.load(std::memory_order_acquire) != segment) continue;
    value->fd = entry.fd.load(std::memory_order_acquire);
    value->bytes = entry.bytes.load(std::memory_order_acquire);
    if (entry.segment.load(std::memory_order_relaxed) == segment) return true;
  }
  return false;
}

}  // namespace

PeerSegments::PeerSegments(std::shared_ptr<GroupMemory> memory, std::vector<Member> members,
                           size_t my_index)
    : memory_(std::move(memory)),
      members_(std::move(members)),
      my_index_(my_index),
      freed_seen_(segments_freed()),
      peers_(members_.size()) {}

PeerSegments::~PeerSegments() {
  for (const Peer& peer : peers_)
    for (const Mapping& mapping : peer.mappings) ::munmap(mapping.memory, mapping.bytes);
}

RankControl& PeerSegments::control(size_t index) const {
  return memory_->control(members_[index].position);
}

Status PeerSegments::share(uint64_t segment, bool replace) {
  if (segment == 0) return error(Code::kInternal, "segment 0 cannot be shared");
  std::lock_guard lock(mutex_);
  withdraw_freed();
  auto& ways = control(my_index_).segments[segment % kSegmentSets];
  SegmentEntry* place = nullptr;
  for (SegmentEntry& entry : ways) {
    const uint64_t held = entry.segment.load(std::memory_order_relaxed);
    if (held == segment) {
      // The other buffer of the same call must not take its place.
      if (&entry == &ways[next_way_ % kSegmentWays]) ++next_way_;
      return {};
    }
    if (held == 0 && place == nullptr) place = &entry;
  }
  if (place == nullptr && !replace)
    return error(Code::kSystem, "no room to share segment {}: {} others are", segment,
                 kSegmentWays);
  // A peer keeps what it has mapped, so giving an entry up costs it nothing until it maps anew.
  if (place == nullptr) place = &ways[next_way_++ % kSegmentWays];
  size_t bytes = 0;
  const int fd = segment_fd(segment, &bytes);
  if (fd < 0) return error(Code::kInvalidUsage, "memory of commMemAlloc was freed while in use");
  place->segment.store(0, std::memory_order_relaxed);
  place->fd.store(static_cast<uint64_t>(fd), std::memory_order_release);
  place->bytes.store(bytes, std::memory_order_release);
  place->segment.store(segment, std::memory_order_release);
  return {};
}

// Takes away the entries of segments that this process has freed, and tells the peers.
void PeerSegments::withdraw_freed() {
  const uint64_t freed = segments_freed();
  if (freed == freed_seen_.load(std::memory_order_relaxed)) return;
  RankControl& mine = control(my_index_);
  bool changed = false;
  for (auto& set : mine.segments)
    for (SegmentEntry& entry : set) {
      size_t bytes = 0;
      const uint64_t segment = entry.segment.load(std::memory_order_relaxed);
      if (segment == 0 || segment_fd(segment, &bytes) >= 0) continue;
      entry.segment.store(0, std::memory_order_release);
      changed = true;
    }
  if (changed) mine.segment_generation.fetch_add(1, std::memory_order_release);
  freed_seen_.store(freed, std::memory_order_release);
}

void PeerSegments::drop_freed() {
  const bool is_idle = !has_mappings_.load(std::memory_order_relaxed) &&
                       freed_seen_.load(std::memory_order_acquire) == segments_freed();
  if (is_idle) return;
  std::lock_guard lock(mutex_);
  withdraw_freed();
  bool has_mappings = false;
  for (size_t i = 0; i < peers_.size(); ++i) {
    if (!peers_[i].mappings.empty()) drop_gone(i);
    has_mappings = has_mappings || !peers_[i].mappings.empty();
  }
  has_mappings_.store(has_mappings, std::memory_order_relaxed);
}

void PeerSegments::drop_gone(size_t index) {
  Peer& peer = peers_[index];
  RankControl& theirs = control(index);
  const uint64_t generation = theirs.segment_generation.load(std::memory_order_acquire);
  if (generation == peer.generation) return;
  peer.generation = generation;
  std::erase_if(peer.mappings, [&theirs](const Mapping& mapping) {
    EntryValue value{};
    if (read_entry(theirs, mapping.segment, &value)) return false;
    ::munmap(mapping.memory, mapping.bytes);
    return true;
  });
}

Result<std::byte*> PeerSegments::map(size_t index, uint64_t segment, uint64_t offset,
                                     size_t bytes) {
  std::byte* memory = nullptr;
  size_t size = 0;
  if (members_[index].in_this_process) {
    memory = segment_address(segment, &size);
    if (memory == nullptr)
      return error(Code::kSystem, "rank {} has no segment {}", members_[index].rank, segment);
  } else {
    std::lock_guard lock(mutex_);
    drop_gone(index);
    std::vector<Mapping>& mappings = peers_[index].mappings;
    auto found = std::find_if(mappings.begin(), mappings.end(), [segment](const Mapping& mapping) {
      return mapping.segment == segment;
    });
    if (found == mappings.end()) {
      COMM_ASSIGN(Mapping fresh, open(index, segment));
      found = mappings.insert(mappings.end(), fresh);
      has_mappings_.store(true, std::memory_order_relaxed);
    }
    memory = found->memory;
    size = found->bytes;
  }
  if (offset > size || bytes > size - offset)
    return error(Code::kSystem, "rank {} names {} bytes at {} of its segment {}, which has {}",
                 members_[index].rank, bytes, offset, segment, size);
  return memory + offset;
}

Result<PeerSegments::Mapping> PeerSegments::open(size_t index, uint64_t segment) const {
  const Member& owner = members_[index];
  EntryValue value{};
  if (!read_entry(control(index), segment, &value) || value.fd > INT_MAX || value.bytes == 0)
    return error(Code::kSystem, "rank {} has not shared its segment {}", owner.rank, segment);
  COMM_ASSIGN(UniqueFd fd, open_peer_fd(owner.pid, static_cast<int>(value.fd)));
  COMM_ASSIGN(SharedFile file, SharedFile::adopt(std::move(fd), value.bytes));
  COMM_ASSIGN(std::byte * memory, file.map(0, value.bytes));
  return Mapping{segment, memory, value.bytes};
}

}  // namespace libcomm::shm
