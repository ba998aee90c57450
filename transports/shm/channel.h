// Channels in shared memory: notes and a ring between one sender and one receiver.
//
// Every segment has a note, the segment's number last; the receiver reads it there and says in a
// cursor of its own how many segments it has taken. Each side therefore polls only lines that the
// other writes for it, and the sender looks at the cursor only when it has used up the credit it
// knows of. What is posted and small travels in the note. Larger payloads lie in a ring, one behind
// the other, each in one piece: so a sender seldom writes lines that its peer has just read.
//
// A large segment that is posted is not copied where the receiver can take it from the sender's
// memory: because both are threads of one process, because it lies in a commMemAlloc segment, or
// because a trial has shown that one process may read the other's memory. The note then says where
// it is, and the segment is complete when the receiver has released it.
#pragma once

#include <algorithm>
#include <memory>

#include "src/base/aligned_buffer.h"
#include "src/reduce/reduce.h"
#include "transports/shm/doorbell.h"
#include "transports/shm/group_memory.h"
#include "transports/transport.h"

namespace libcomm::shm {

// What both ends of a channel need to know of the group.
struct ChannelPlace {
  std::shared_ptr<GroupMemory> memory;
  std::byte* extent = nullptr;
  Doorbell* peer_bell = nullptr;
  int peer = -1;       // rank, for messages
  int my_rank = -1;    // for messages
  bool fence = false;  // ranks share cores, and wake-ups must not be lost
  std::shared_ptr<std::atomic<int>> open_channels = nullptr;  // counts this one while it lives
  Board* board = nullptr;  // outlives the channels; null: no references
  int peer_index = -1;     // on the board
  bool same_process = false;

  // Any memory of the sender can be passed by reference.
  bool refers_to_all() const {
    return board != nullptr && (same_process || board->memory_readable());
  }
};

// Least bytes of a segment that is passed by reference. Where the kernel copies, a page costs more
// than twice copying it (measured); where it does not, any segment that is not tiny gains.
inline constexpr size_t kLeastRead = 16 << 10;
inline constexpr size_t kLeastMapped = 2 << 10;
// Most bytes, where any memory can be: large, so that neither end waits for the other in between,
// and small enough that a wait still sees the end of a communicator soon.
inline constexpr size_t kMostReferred = 4 << 20;
// Of the ring, as long as the receiver keeps up: what stays in the caches that the two share.
inline constexpr size_t kWalk = 768 << 10;

// Where things are in a channel's extent.
struct ChannelParts {
  ChannelHeader* header;
  Note* notes;
  std::byte* ring;
  size_t ring_bytes;
  size_t slot_bytes;  // of a whole segment

  explicit ChannelParts(const ChannelPlace& place);
  Note& note(uint64_t index) const { return notes[index % kNotes]; }
};

class ShmSendChannel final : public SendChannel {
 public:
  explicit ShmSendChannel(ChannelPlace place);
  ~ShmSendChannel() override;
  unsigned capabilities() const override {
    return kMapped | kOrdered | (place_.board != nullptr ? kReferences : 0u);
  }
  size_t segment_bytes() const override { return parts_.slot_bytes; }
  // kRemote when the receiver's cursor is impossible.
  Status reserve(std::byte** slot) override;
  // kInternal without a reserved slot or with more bytes than a slot holds.
  Status commit(const Signature& signature, size_t bytes) override;
  Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted) override;
  size_t post_bytes() const override {
    return place_.refers_to_all() ? std::max(parts_.slot_bytes, kMostReferred) : parts_.slot_bytes;
  }
  Status progress(uint64_t* completed) override;
  void withdraw() override;

 private:
  // What the receiver needs to take [src, src + bytes) where it is; kHere when it cannot.
  struct Reference {
    Payload where = Payload::kHere;
    uint64_t words[2] = {};
  };
  // A segment's part of the ring; no bytes: none.
  struct Stretch {
    size_t begin = 0;
    size_t bytes = 0;
  };
  Reference refer(const void* src, size_t bytes);
  void publish_here(const Signature& signature, const std::byte* src, size_t bytes);
  void publish_in_ring(const Signature& signature, size_t begin, size_t bytes);
  void publish_elsewhere(const Signature& signature, size_t bytes, const Reference& reference);
  void write_head(const Signature& signature, size_t bytes, Payload where);
  void finish_note();
  Status refresh_credit();
  Status await_release(uint64_t wanted, bool* there);
  Status find_room(size_t bytes, bool* found, size_t* begin);
  Status find_stretch(size_t bytes, bool* found, size_t* begin);
  bool fits(size_t bytes, size_t* begin);

  const ChannelPlace place_;
  const ChannelParts parts_;
  uint64_t sent_ = 0;
  const uint64_t sent_before_ = sent_;  // by an earlier end of the same channel
  uint64_t released_ = 0;               // as last read
  uint64_t referred_ = 0;               // segments up to the last that went by reference
  uint64_t completed_ = sent_before_;   // as last reported
  bool reserved_ = false;
  size_t reserved_at_ = 0;     // in the ring
  size_t at_ = 0;              // in the ring: behind what was used last
  uint64_t oldest_ = 0;        // no earlier segment uses the ring any more
  Stretch stretches_[kNotes];  // by segment
  bool asked_for_credit_ = false;
};

class ShmRecvChannel final : public RecvChannel {
 public:
  explicit ShmRecvChannel(ChannelPlace place);
  ~ShmRecvChannel() override;
  unsigned capabilities() const override { return kMapped | kOrdered; }
  size_t segment_bytes() const override { return parts_.slot_bytes; }
  // kRemote when the sender wrote an impossible number or length.
  Status peek(Segment* segment) override;
  // kInternal when nothing was shown.
  Status release() override;
  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) override;
  void expect(const Signature& /*expected*/, void* /*dst*/, size_t bytes,
              size_t /*segment*/) override {
    stream_ = bytes >= kStreamBytes;
  }
  size_t receive_bytes() const override {
    return place_.refers_to_all() ? std::max(parts_.slot_bytes, kMostReferred) : parts_.slot_bytes;
  }

 private:
  Status look();
  Status take(uint32_t sequence, const NoteHead& from);
  Status resolve(const NoteHead& from);
  Status fetch(void* dst);
  bool take_lines(std::byte* dst);
  Status copy_within_process(void* dst);
  Status check_offered() const;

  const ChannelPlace place_;
  const ChannelParts parts_;
  uint64_t taken_ = 0;
  // What was read of the note's head: once, so that it cannot change. `ready`: it has been. Without
  // data, the payload is at `address_` in the sender's process, or spread over the note's lines.
  Segment shown_;
  Payload where_ = Payload::kHere;
  uint64_t address_ = 0;
  size_t lines_taken_ = 0;  // by take_lines()
  bool stream_ = false;     // what is received is part of so much that it goes around the caches
  AlignedBuffer staging_;   // for peek() of such a payload
};

}  // namespace libcomm::shm
