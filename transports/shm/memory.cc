#include "transports/shm/memory.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/base/log.h"
#include "transports/shm/shared_file.h"

namespace libcomm {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

struct Range {
  uintptr_t begin;
  size_t bytes;  // as asked for
  uint64_t segment;
};

struct LiveSegment {
  Range range;
  size_t mapped_bytes;
  shm::SharedFile file;
};

struct Registry {
  ForkMutex mutex;
  std::vector<LiveSegment> live;  // by address
  uint64_t last_segment = 0;
  std::atomic<size_t> count{0};
  std::atomic<uint64_t> changes{0};  // grows whenever `live` changes
  std::atomic<uint64_t> freed{0};
};

Registry& registry() {
  static Registry* const instance = new Registry;  // never destroyed: threads may outlive main()
  return *instance;
}

// A thread's own copy of the ranges, so that looking up takes no lock.
struct Snapshot {
  uint64_t changes = 0;
  std::vector<Range> ranges;  // by address
};

const Snapshot& current_snapshot(Registry& segments) {
  thread_local Snapshot snapshot;
  if (snapshot.changes != segments.changes.load(std::memory_order_acquire)) {
    std::lock_guard lock(segments.mutex);
    snapshot.ranges.clear();
    for (const LiveSegment& segment : segments.live) snapshot.ranges.push_back(segment.range);
    snapshot.changes = segments.changes.load(std::memory_order_relaxed);
  }
  return snapshot;
}

size_t memory_of_machine() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return SIZE_MAX;
  return (info.totalram + info.totalswap) * info.mem_unit;
}

std::vector<LiveSegment>::iterator find_number(Registry& segments, uint64_t segment) {
  return std::find_if(segments.live.begin(), segments.live.end(),
                      [segment](const LiveSegment& item) { return item.range.segment == segment; });
}

}  // namespace

Result<void*> segment_alloc(size_t bytes) {
  if (bytes == 0) return error(Code::kInvalidArgument, "commMemAlloc of 0 bytes");
  if (const size_t most = memory_of_machine(); bytes > most)
    return error(Code::kSystem, "commMemAlloc of {} bytes: this machine has {} (memory and swap)",
                 bytes, most);
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t mapped_bytes = (bytes + page - 1) / page * page;
  COMM_ASSIGN(shm::SharedFile file, shm::SharedFile::create("comm-segment", mapped_bytes));
  if (file.must_reserve()) COMM_TRY(file.reserve(0, mapped_bytes));
  COMM_ASSIGN(std::byte * memory, file.map(0, mapped_bytes));
  if (mapped_bytes >= kHugePage) (void)::madvise(memory, mapped_bytes, MADV_HUGEPAGE);
  log_info(Subsys::kAlloc, "commMemAlloc: {} bytes at {}", bytes, fmt::ptr(memory));

  Registry& segments = registry();
  std::lock_guard lock(segments.mutex);
  const Range range{reinterpret_cast<uintptr_t>(memory), bytes, ++segments.last_segment};
  const auto place = std::lower_bound(
      segments.live.begin(), segments.live.end(), range.begin,
      [](const LiveSegment& item, uintptr_t begin) { return item.range.begin < begin; });
  segments.live.insert(place, LiveSegment{range, mapped_bytes, std::move(file)});
  segments.count.store(segments.live.size(), std::memory_order_relaxed);
  segments.changes.fetch_add(1, std::memory_order_release);
  return static_cast<void*>(memory);
}

Status segment_free(void* ptr) {
  Registry& segments = registry();
  std::unique_lock lock(segments.mutex);
  const auto found =
      std::find_if(segments.live.begin(), segments.live.end(), [ptr](const LiveSegment& item) {
        return item.range.begin == reinterpret_cast<uintptr_t>(ptr);
      });
  if (found == segments.live.end())
    return error(Code::kInvalidArgument, "commMemFree of {}: not memory of commMemAlloc",
                 fmt::ptr(ptr));
  const LiveSegment gone = std::move(*found);
  segments.live.erase(found);
  segments.count.store(segments.live.size(), std::memory_order_relaxed);
  segments.changes.fetch_add(1, std::memory_order_release);
  segments.freed.fetch_add(1, std::memory_order_release);
  lock.unlock();
  ::munmap(ptr, gone.mapped_bytes);
  return {};
}

std::optional<SegmentRef> find_segment(const void* ptr, size_t bytes) {
  Registry& segments = registry();
  if (segments.count.load(std::memory_order_relaxed) == 0) return std::nullopt;
  const std::vector<Range>& ranges = current_snapshot(segments).ranges;
  const auto address = reinterpret_cast<uintptr_t>(ptr);
  auto after =
      std::upper_bound(ranges.begin(), ranges.end(), address,
                       [](uintptr_t value, const Range& range) { return value < range.begin; });
  if (after == ranges.begin()) return std::nullopt;
  const Range& range = *--after;
  const uint64_t offset = address - range.begin;
  if (offset > range.bytes || bytes > range.bytes - offset) return std::nullopt;
  return SegmentRef{range.segment, offset};
}

int segment_fd(uint64_t segment, size_t* bytes) {
  Registry& segments = registry();
  std::lock_guard lock(segments.mutex);
  const auto found = find_number(segments, segment);
  if (found == segments.live.end()) return -1;
  *bytes = found->range.bytes;
  return found->file.fd();
}

std::byte* segment_address(uint64_t segment, size_t* bytes) {
  Registry& segments = registry();
  std::lock_guard lock(segments.mutex);
  const auto found = find_number(segments, segment);
  if (found == segments.live.end()) return nullptr;
  *bytes = found->range.bytes;
  return reinterpret_cast<std::byte*>(found->range.begin);
}

uint64_t segments_freed() { return registry().freed.load(std::memory_order_acquire); }

}  // namespace libcomm
