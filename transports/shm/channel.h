// Channels in shared memory: a ring of slots between one sender and one receiver.
//
// The sender fills a slot in place, then stores the segment's number in the slot's header; the
// receiver reads it there and says in a cursor of its own how many segments it has taken. Each side
// therefore polls only lines that the other writes for it, and the sender looks at the cursor only
// when it has used up the credit it knows of. Payloads of up to 16 bytes travel in the header's
// line.
//
// A large segment that is posted is not copied into its slot where the receiver can take it from
// the sender's memory: because both are threads of one process, because it lies in a commMemAlloc
// segment, or because a trial has shown that one process may read the other's memory. The slot then
// says where it is, and the segment is complete when the receiver has released it.
#pragma once

#include <algorithm>
#include <memory>

#include "src/base/aligned_buffer.h"
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

class ShmSendChannel final : public SendChannel {
 public:
  explicit ShmSendChannel(ChannelPlace place);
  ~ShmSendChannel() override;
  unsigned capabilities() const override {
    return kMapped | kOrdered | (place_.board != nullptr ? kReferences : 0u);
  }
  size_t segment_bytes() const override { return slot_bytes_; }
  // kRemote when the receiver's cursor is impossible.
  Status reserve(std::byte** slot) override;
  // kInternal without a reserved slot or with more bytes than a slot holds.
  Status commit(const Signature& signature, size_t bytes) override;
  Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted) override;
  size_t post_bytes() const override {
    return place_.refers_to_all() ? std::max(slot_bytes_, kMostReferred) : slot_bytes_;
  }
  Status progress(uint64_t* completed) override;
  void withdraw() override;

 private:
  // What the receiver needs to take [src, src + bytes) where it is; kHere when it cannot.
  struct Reference {
    Payload where = Payload::kHere;
    uint64_t words[2] = {};
  };
  Reference refer(const void* src, size_t bytes);
  Status publish(const Signature& signature, size_t bytes, const Reference& reference);
  SlotHeader& slot() const {
    return *reinterpret_cast<SlotHeader*>(slots_ + slot_index_ * slot_stride_);
  }
  Status refresh_credit();
  Status await_release(uint64_t wanted, bool* there);

  const ChannelPlace place_;
  ChannelHeader* const header_;
  std::byte* const slots_;
  const size_t slot_bytes_;
  const size_t slot_stride_;
  const size_t slot_count_;
  size_t slot_index_ = 0;  // sent_ modulo slot_count_
  uint64_t sent_ = 0;
  const uint64_t sent_before_ = sent_;  // by an earlier end of the same channel
  uint64_t released_ = 0;               // as last read
  uint64_t referred_ = 0;               // segments up to the last that went by reference
  uint64_t completed_ = sent_before_;   // as last reported
  bool reserved_ = false;
  bool asked_for_credit_ = false;
};

class ShmRecvChannel final : public RecvChannel {
 public:
  explicit ShmRecvChannel(ChannelPlace place);
  ~ShmRecvChannel() override;
  unsigned capabilities() const override { return kMapped | kOrdered; }
  size_t segment_bytes() const override { return slot_bytes_; }
  // kRemote when the sender wrote an impossible number or length.
  Status peek(Segment* segment) override;
  // kInternal when nothing was shown.
  Status release() override;
  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) override;
  size_t receive_bytes() const override {
    return place_.refers_to_all() ? std::max(slot_bytes_, kMostReferred) : slot_bytes_;
  }

 private:
  SlotHeader& slot() const {
    return *reinterpret_cast<SlotHeader*>(slots_ + slot_index_ * slot_stride_);
  }
  Status look();
  Status take(uint32_t sequence, SlotHeader& from);
  Status resolve(Payload where, const SlotHeader& from);
  Status fetch(void* dst);
  Status copy_within_process(void* dst);
  Status check_offered() const;

  const ChannelPlace place_;
  ChannelHeader* const header_;
  std::byte* const slots_;
  const size_t slot_bytes_;
  const size_t slot_stride_;
  const size_t slot_count_;
  size_t slot_index_ = 0;  // taken_ modulo slot_count_
  uint64_t taken_ = 0;
  // What was read of the slot: once, so that it cannot change. Without data, the payload is at
  // `address_` in the sender's process.
  Segment shown_;
  uint64_t address_ = 0;
  AlignedBuffer staging_;  // for peek() of such a payload
};

}  // namespace libcomm::shm
