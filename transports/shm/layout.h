// What lies where in a group's shared memory, and the structures that ranks write for each other
// there.
//
//   GroupHeader | RankControl per member | channel directory | board part per member | channel
//   extents
//
// The file is sparse and its size is that of everything that could ever be opened; only what is
// touched costs memory. A channel's place is an *extent*, claimed in the directory by whichever end
// opens it first. Everything here is written by peers: readers bound what they read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "src/base/status.h"
#include "transports/pass_fd.h"

namespace libcomm::shm {

inline constexpr size_t kLine = 64;  // bytes that move between cores at once
// Processors fetch lines in pairs (Intel's spatial prefetcher): what must not travel with what
// another rank reads starts a pair of its own.
inline constexpr size_t kPair = 128;
inline constexpr size_t kPage = 4096;
inline constexpr int kMaxLanes = 128;
inline constexpr size_t kMaxSlots = 8;  // whole segments that a channel's ring holds
inline constexpr size_t kLeastSlotBytes = 4096;
// Of a board part: sparse where memory is taken when touched, small where it must be reserved
// whole.
inline constexpr size_t kPartBytes = size_t{8} << 20;
inline constexpr size_t kReservedPartBytes = size_t{4} << 20;

inline constexpr uint64_t kMagic = 0x31304d4853434343;
inline constexpr uint32_t kVersion = 3;

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Where a rank sleeps. A line that stays shared in every cache while nobody sleeps.
struct alignas(kPair) Doorbell {
  std::atomic<uint32_t> rings;     // the futex word; grows with every wake-up
  std::atomic<uint32_t> sleepers;  // threads between prepare_sleep() and the end of sleep()
  std::atomic<uint32_t> core;      // where its thread waited last, from 1; 0: it never had to
};

// A Signature under a sequence lock: odd while the owner writes it.
struct SignatureRecord {
  std::atomic<uint32_t> version;
  std::atomic<uint64_t> words[4];
};
struct alignas(kPair) PublishedSignature {
  SignatureRecord record;
};

// Where peers find one of the owner's commMemAlloc segments. `segment` is 0 while the entry is
// unused or being written.
struct SegmentEntry {
  std::atomic<uint64_t> segment;
  std::atomic<uint64_t> fd;
  std::atomic<uint64_t> bytes;
};
inline constexpr size_t kSegmentSets = 32;
inline constexpr size_t kSegmentWays = 4;

inline constexpr size_t kEarlierCalls = 8;

// What one member writes and all others read.
struct alignas(kPage) RankControl {
  Doorbell doorbell;
  PublishedSignature published;
  // Of operations that the owner may have gone on from, each where its number says.
  alignas(kLine) SignatureRecord earlier[kEarlierCalls];
  alignas(kLine) std::atomic<uint64_t> proof[4];
  // Grows when an entry was taken away because its segment is gone.
  alignas(kLine) std::atomic<uint64_t> segment_generation;
  SegmentEntry segments[kSegmentSets][kSegmentWays];
};
static_assert(sizeof(RankControl) == kPage);

struct alignas(kPage) GroupHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t members;
  Nonce nonce;
  uint64_t part_bytes;
  uint64_t slot_bytes;
  uint64_t slots;
  alignas(kLine) std::atomic<uint64_t> claimed_extents;
};
static_assert(sizeof(GroupHeader) == kPage);

// Where a segment's payload is.
enum class Payload : uint64_t {
  kHere = 0,     // in the note
  kAddress = 1,  // at word[0] in the sender's process
  kSegment = 2,  // in its commMemAlloc segment word[0], at offset word[1]
  kRing = 3,     // in the channel's ring, at offset word[0]
};

// What the sender says of one segment under way. Every line brings its own flag, so that a small
// payload travels in the lines that announce it. No line is ever used for anything else: no data is
// taken for a flag.
inline constexpr size_t kHeadBytes = 16;
struct alignas(kLine) NoteHead {
  std::atomic<uint32_t> sequence;  // the segment's number from 1, once it has arrived
  uint32_t bytes;
  uint64_t where;  // a Payload; what its words are lies in `payload`
  uint64_t signature[4];
  std::byte payload[kHeadBytes];
};
static_assert(sizeof(NoteHead) == kLine);
struct alignas(kLine) NoteLine {
  std::atomic<uint64_t> sequence;
  std::byte payload[kLine - sizeof(uint64_t)];
};
static_assert(sizeof(NoteLine) == kLine);
struct Note {
  static constexpr size_t kLines = 32;
  static constexpr size_t kLineBytes = sizeof(NoteLine::payload);
  static constexpr size_t kBytes = kHeadBytes + kLines * kLineBytes;

  NoteHead head;
  NoteLine lines[kLines];

  // That a payload in the note needs beside the head.
  static size_t lines_for(size_t bytes) {
    return bytes <= kHeadBytes ? 0 : (bytes - kHeadBytes + kLineBytes - 1) / kLineBytes;
  }
};
// Segments that may be under way at a time.
inline constexpr size_t kNotes = 32;

// Cursors of one channel, each on the line of the end that writes it. They outlive the ends, so
// that a channel that is closed and opened again goes on where it was.
struct ChannelHeader {
  alignas(kLine) std::atomic<uint32_t> credit_wanted;  // by the sender: it found no room
  std::atomic<uint64_t> sent;                          // by the sender when it closes
  std::atomic<uint32_t> withdrawn;  // by the sender: its references are not to be used any more
  alignas(kLine) std::atomic<uint64_t> released;  // by the receiver: segments taken so far
  std::atomic<uint32_t> taking;  // by the receiver: it reads the sender's memory, in one process
};
static_assert(sizeof(ChannelHeader) == 2 * kLine);

// Offsets of it all: a function of values that all members have agreed on.
struct Layout {
  size_t members = 0;
  size_t part_bytes = 0;
  size_t slot_bytes = 0;
  size_t slots = 0;

  static Layout of(size_t members, size_t buffer_bytes, size_t part_bytes);

  size_t control_offset() const { return sizeof(GroupHeader); }
  size_t directory_offset() const { return control_offset() + members * sizeof(RankControl); }
  size_t directory_entry(size_t from, size_t to, size_t lane) const {
    return (from * members + to) * kMaxLanes + lane;
  }
  size_t parts_offset() const;
  // Where the part that is mapped at once ends and the extents begin.
  size_t fixed_bytes() const { return parts_offset() + members * part_bytes; }

  // Of a channel, for payloads that lie neither in a note nor in the sender's memory.
  size_t ring_bytes() const { return slots * slot_bytes; }
  size_t extent_bytes() const;
  // Both ends of a channel may claim an extent, and one of them then goes unused.
  size_t extents() const { return 2 * members * members * kMaxLanes; }
  // Extents are mapped by the region, so that many channels do not mean many mappings.
  size_t extents_per_region() const;
  size_t region_bytes() const { return extents_per_region() * extent_bytes(); }
  size_t region_offset(size_t region) const { return fixed_bytes() + region * region_bytes(); }
  size_t file_bytes() const { return region_offset(extents() / extents_per_region() + 1); }
};

}  // namespace libcomm::shm
