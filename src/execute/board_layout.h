// BoardLayout: what the fused exchanges keep where in a rank's part of the board, and the counters
// that order them. Every rank writes its own part only (and, for commMemAlloc memory, its share of
// a peer's output buffer), and reads the others'.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "src/device/kernels/arguments.h"
#include "src/execute/reachable_calls.h"
#include "transports/shm/memory.h"
#include "transports/transport.h"

namespace libcomm {

inline constexpr size_t kLine = 64;
inline constexpr size_t kPair = 128;  // processors fetch lines in pairs

// How peers may use a rank's buffer.
enum class Access : uint64_t {
  kNone = 0,     // not at all: through the board
  kSegment = 1,  // map it: it lies in a commMemAlloc segment
  kAddress = 2,  // read it where it is in the owner's process; in this process, use it
};

// What a rank says about one of its buffers. The tag tells of which operation, by its first window:
// a rank whose buffer peers do not use may be in a later operation when a slow one looks; one whose
// buffer they use waits until all have.
struct BufferNote {
  std::atomic<uint64_t> tag;
  uint64_t segment;
  uint64_t offset;  // in the segment; kAddress: the address

  void set(uint64_t first_window, Access access, const SegmentRef& place) {
    segment = place.segment;
    offset = place.offset;
    tag.store(first_window * 4 + static_cast<uint64_t>(access), std::memory_order_release);
  }
  Access access(uint64_t first_window) const {
    const uint64_t seen = tag.load(std::memory_order_acquire);
    return seen / 4 == first_window ? static_cast<Access>(seen % 4) : Access::kNone;
  }
};

// First page of a part. Counters only grow, over all operations of the communicator.
struct BoardControl {
  alignas(kPair) std::atomic<uint64_t> exchanged;  // one-shot exchanges that this rank has ended
  alignas(kPair) std::atomic<uint64_t> staged;     // windows whose input peers may read
  alignas(kPair) std::atomic<uint64_t> reduced;    // windows whose share this rank has reduced
  alignas(kPair) std::atomic<uint64_t> gathered;   // windows that this rank has collected whole
  alignas(kPair) BufferNote in;  // of the operation whose first window is staged next
  BufferNote out;
  // Among ranks of one process, which use each other's very memory: this rank does so right now;
  // this rank's may not be used any more.
  alignas(kPair) std::atomic<uint32_t> using_neighbours;
  std::atomic<uint32_t> withdrawn;
  // By rank: messages that this rank has copied out of its GPU memory.
  alignas(kPair) std::atomic<uint64_t> copied[cuda::kMaxSources];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// What a rank has for the others in one one-shot exchange. A flag is the exchange's number (low 32
// bits, never 0) and a hash of all calls so far. Small data is spread over lines that each bring
// their flag along, so that all of them travel at once; what is larger lies in the bulk, stored
// before the first flag. The two never share memory: no data is ever taken for a flag.
struct OneshotSlot {
  struct alignas(kLine) Line {
    std::atomic<uint64_t> flag;
    std::byte data[kLine - sizeof(uint64_t)];
  };
  static constexpr int kLines = 32;
  static constexpr size_t kLineData = sizeof(Line::data);
  static constexpr size_t kSmallBytes = kLines * kLineData;

  Line lines[kLines];
  // Of the call, for naming a mismatch; read after the flag of that number was seen.
  alignas(kPair) std::atomic<uint64_t> signature[sizeof(Signature) / sizeof(uint64_t)];

  // Lines that carry so much data; 1, for the flag, when the bulk does.
  static int lines_for(size_t bytes) {
    if (bytes <= kLineData || bytes > kSmallBytes) return 1;
    return static_cast<int>((bytes + kLineData - 1) / kLineData);
  }
};
static_assert(sizeof(OneshotSlot) == OneshotSlot::kLines * kLine + kPair);

inline constexpr size_t kControlBytes = 4096;
static_assert(sizeof(BoardControl) <= kControlBytes);
inline constexpr size_t kOneshotBytes = size_t{256} << 10;  // most data of a one-shot exchange
inline constexpr int kOneshotSlots =
    32;  // exchanges that a rank may be ahead of one that still reads
inline constexpr int kBulkSections = 3;  // each holds the bulk of at least one exchange
inline constexpr size_t kBulkBegin = kControlBytes + kOneshotSlots * sizeof(OneshotSlot);
inline constexpr size_t kStagingBegin = size_t{1} << 20;
inline constexpr int kWindowBuffers = 4;  // windows in flight
static_assert(kBulkBegin + kBulkSections * kOneshotBytes <= kStagingBegin);

// The commMemAlloc segment that holds a buffer, shared with the peers; none when there is none, or
// when they cannot map it.
inline std::optional<SegmentRef> share_buffer(Board& board, const void* buffer, size_t bytes) {
  if (!board.segments_mappable()) return std::nullopt;
  const std::optional<SegmentRef> place = find_segment(buffer, bytes);
  if (!place || !board.share_segment(place->segment, true)) return std::nullopt;
  return place;
}

// All ranks are threads of this process and may use each other's memory.
inline bool is_one_process(const Board& board) {
  for (int i = 0; i < static_cast<int>(board.ranks().size()); ++i)
    if (i != board.index() && !board.in_this_process(i)) return false;
  return board.memory_readable();
}

inline BoardControl& board_control(std::byte* part) {
  return *reinterpret_cast<BoardControl*>(part);
}
inline OneshotSlot& oneshot_slot(std::byte* part, uint64_t exchange) {
  return reinterpret_cast<OneshotSlot*>(part + kControlBytes)[exchange % kOneshotSlots];
}
inline std::byte* oneshot_bulk(std::byte* part, size_t place) { return part + kBulkBegin + place; }

// Where the bulks of one-shot exchanges lie: one behind the other, all around. A line that peers
// have read long ago is written sooner than one that they have just read. All ranks make the same
// exchanges, so all come to the same places.
class BulkPlaces {
 public:
  struct Place {
    size_t begin;
    uint64_t after;  // the exchange that must have ended on all ranks before it may be written
  };
  // `writers`: how many ranks have a bulk in this exchange. The more, the less of a section is
  // used: they share the caches, and memory that is never touched costs nothing.
  Place next(uint64_t exchange, size_t bytes, size_t writers) {
    const size_t used = std::clamp(4 * kOneshotBytes / (writers * writers), bytes, kOneshotBytes);
    Place place{at_, 0};
    if (at_ % kOneshotBytes + bytes > used) place.begin = end_of_section();
    place.begin %= kBulkSections * kOneshotBytes;
    uint64_t& last = last_[place.begin / kOneshotBytes];
    // Within a section nothing is overwritten that was not waited for at its begin.
    if (place.begin % kOneshotBytes == 0) place.after = last;
    last = exchange;
    at_ = place.begin + (bytes + kLine - 1) / kLine * kLine;
    return place;
  }

 private:
  size_t end_of_section() const { return (at_ / kOneshotBytes + 1) * kOneshotBytes; }

  size_t at_ = 0;
  uint64_t last_[kBulkSections] = {};  // exchange that lies in each section
};

// Where windows are staged, for `n` ranks and windows of `window` bytes: an input window, then the
// reduced share, per buffer.
struct Staging {
  size_t window;
  size_t share;  // bytes of one rank's share of a window, rounded up to lines

  static Staging fit(size_t part_bytes, int n, size_t wanted_window) {
    const size_t ranks = static_cast<size_t>(n);
    const size_t room = (part_bytes - kStagingBegin) / kWindowBuffers;
    // window + share fit in the room of one buffer; the share is at most window / n plus a line.
    size_t window = std::min(wanted_window, (room - kLine * (ranks + 1)) / 2);
    window = std::max(window / (kLine * ranks), size_t{1}) * kLine * ranks;
    return {window, window / ranks};
  }
  std::byte* input(std::byte* part, uint64_t index) const {
    return part + kStagingBegin + (index % kWindowBuffers) * (window + share);
  }
  std::byte* result(std::byte* part, uint64_t index) const { return input(part, index) + window; }
};

// This rank's view of how far the exchanges of its communicator have come.
struct BoardState {
  uint64_t oneshots = 0;
  BulkPlaces bulks;
  ReachableCalls reachable;
  uint64_t windows = 0;
  size_t window = 0;  // bytes, of the last operation that had any
  // Bytes per window from now on; true when that moves the buffers, so that none may be written
  // before all ranks have ended the operation before.
  bool lay_out(size_t bytes) { return std::exchange(window, bytes) != bytes; }
  uint64_t calls = 0;  // a hash of all one-shot calls so far, equal on all ranks
  // The last of them ended here before every rank was known to be in the same call.
  bool unverified = false;
  std::vector<uint64_t> exchanged;  // of the others, by index, when last looked at
};

}  // namespace libcomm
