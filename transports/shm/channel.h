// Channels in shared memory: a ring of slots between one sender and one receiver.
//
// The sender fills a slot in place, then stores the segment's number in the slot's header; the
// receiver reads it there and says in a cursor of its own how many segments it has taken. Each side
// therefore polls only lines that the other writes for it, and the sender looks at the cursor only
// when it has used up the credit it knows of. Payloads of up to 16 bytes travel in the header's
// line.
#pragma once

#include <memory>

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
};

class ShmSendChannel final : public SendChannel {
 public:
  explicit ShmSendChannel(ChannelPlace place);
  ~ShmSendChannel() override;
  unsigned capabilities() const override { return kMapped | kOrdered; }
  size_t segment_bytes() const override { return slot_bytes_; }
  // kRemote when the receiver's cursor is impossible.
  Status reserve(std::byte** slot) override;
  // kInternal without a reserved slot or with more bytes than a slot holds.
  Status commit(const Signature& signature, size_t bytes) override;
  Status progress(uint64_t* completed) override;

 private:
  SlotHeader& slot() const {
    return *reinterpret_cast<SlotHeader*>(slots_ + slot_index_ * slot_stride_);
  }
  Status refresh_credit();

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

 private:
  SlotHeader& slot() const {
    return *reinterpret_cast<SlotHeader*>(slots_ + slot_index_ * slot_stride_);
  }
  Status take(uint32_t sequence, SlotHeader& from);

  const ChannelPlace place_;
  ChannelHeader* const header_;
  std::byte* const slots_;
  const size_t slot_bytes_;
  const size_t slot_stride_;
  const size_t slot_count_;
  size_t slot_index_ = 0;  // taken_ modulo slot_count_
  uint64_t taken_ = 0;
  Segment shown_;  // what peek() has read of the slot: read once, so that it cannot change
};

}  // namespace libcomm::shm
