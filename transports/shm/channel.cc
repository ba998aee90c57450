#include "transports/shm/channel.h"

#include <cstring>

namespace libcomm::shm {
namespace {

static_assert(sizeof(SlotHeader::signature) == sizeof(Signature));

// Segment numbers on the wire start at 1 and wrap.
uint32_t sequence_of(uint64_t index) { return static_cast<uint32_t>(index + 1); }

std::byte* body_of(SlotHeader& slot) { return reinterpret_cast<std::byte*>(&slot + 1); }

// Copies of constant length: a call costs more than the copy. The body is longer than either.
void copy_inline(SlotHeader& slot, size_t bytes) {
  if (bytes <= kInlineBytes / 2)
    std::memcpy(slot.payload, body_of(slot), kInlineBytes / 2);
  else
    std::memcpy(slot.payload, body_of(slot), kInlineBytes);
}

}  // namespace

ShmSendChannel::ShmSendChannel(ChannelPlace place)
    : place_(std::move(place)),
      header_(reinterpret_cast<ChannelHeader*>(place_.extent)),
      slots_(place_.extent + sizeof(ChannelHeader)),
      slot_bytes_(place_.memory->layout().slot_bytes),
      slot_stride_(place_.memory->layout().slot_stride()),
      slot_count_(place_.memory->layout().slots),
      slot_index_(header_->sent.load(std::memory_order_relaxed) % slot_count_),
      sent_(header_->sent.load(std::memory_order_relaxed)),
      // No credit is known of a channel that was used before: the first reserve() looks.
      released_(sent_ > slot_count_ ? sent_ - slot_count_ : 0) {
  if (place_.open_channels) place_.open_channels->fetch_add(1, std::memory_order_relaxed);
}

ShmSendChannel::~ShmSendChannel() {
  header_->sent.store(sent_, std::memory_order_relaxed);
  if (place_.open_channels) place_.open_channels->fetch_sub(1, std::memory_order_relaxed);
}

Status ShmSendChannel::refresh_credit() {
  const uint64_t released = header_->released.load(std::memory_order_acquire);
  if (released < released_ || released > sent_)
    return error(Code::kRemote,
                 "shared memory is damaged: rank {} says it has taken {} segments of {} sent",
                 place_.peer, released, sent_)
        .with_peer(place_.peer);
  released_ = released;
  return {};
}

Status ShmSendChannel::reserve(std::byte** result) {
  *result = nullptr;
  if (sent_ - released_ == slot_count_) {
    COMM_TRY(refresh_credit());
    if (sent_ - released_ == slot_count_) {
      if (asked_for_credit_) return {};
      // Ask to be woken, then look again: the receiver may have released before it could see this.
      asked_for_credit_ = true;
      header_->credit_wanted.store(1, std::memory_order_release);
      full_fence();
      COMM_TRY(refresh_credit());
      if (sent_ - released_ == slot_count_) return {};
    }
  }
  if (asked_for_credit_) {
    asked_for_credit_ = false;
    header_->credit_wanted.store(0, std::memory_order_release);
  }
  reserved_ = true;
  *result = body_of(slot());
  return {};
}

Status ShmSendChannel::commit(const Signature& signature, size_t bytes) {
  if (!reserved_ || bytes > slot_bytes_)
    return error(Code::kInternal, "commit of {} bytes to rank {} without a slot for them ({} each)",
                 bytes, place_.peer, slot_bytes_);
  SlotHeader& to = slot();
  if (bytes <= kInlineBytes) copy_inline(to, bytes);
  to.bytes = static_cast<uint32_t>(bytes);
  std::memcpy(to.signature, &signature, sizeof signature);
  to.sequence.store(sequence_of(sent_), std::memory_order_release);
  ++sent_;
  reserved_ = false;
  if (++slot_index_ == slot_count_) slot_index_ = 0;
  // The cursor is needed two segments from now: its line can come while this one travels.
  if (sent_ - released_ == slot_count_ - 1) __builtin_prefetch(&header_->released);
  if (place_.fence) full_fence();
  ring(*place_.peer_bell);
  return {};
}

Status ShmSendChannel::progress(uint64_t* completed) {
  *completed = sent_ - sent_before_;
  return {};
}

ShmRecvChannel::ShmRecvChannel(ChannelPlace place)
    : place_(std::move(place)),
      header_(reinterpret_cast<ChannelHeader*>(place_.extent)),
      slots_(place_.extent + sizeof(ChannelHeader)),
      slot_bytes_(place_.memory->layout().slot_bytes),
      slot_stride_(place_.memory->layout().slot_stride()),
      slot_count_(place_.memory->layout().slots),
      slot_index_(header_->released.load(std::memory_order_relaxed) % slot_count_),
      taken_(header_->released.load(std::memory_order_relaxed)) {
  if (place_.open_channels) place_.open_channels->fetch_add(1, std::memory_order_relaxed);
}

ShmRecvChannel::~ShmRecvChannel() {
  if (place_.open_channels) place_.open_channels->fetch_sub(1, std::memory_order_relaxed);
}

// Reads the slot's header once it has changed.
Status ShmRecvChannel::take(uint32_t sequence, SlotHeader& from) {
  const uint32_t bytes = from.bytes;
  if (sequence != sequence_of(taken_) || bytes > slot_bytes_)
    return error(
               Code::kRemote,
               "shared memory is damaged: rank {} sent segment {} of {} bytes where segment {} of "
               "at most {} was due",
               place_.peer, sequence, bytes, sequence_of(taken_), slot_bytes_)
        .with_peer(place_.peer);
  shown_.data = bytes <= kInlineBytes ? from.payload : body_of(from);
  shown_.bytes = bytes;
  std::memcpy(&shown_.signature, from.signature, sizeof shown_.signature);
  shown_.ready = true;
  return {};
}

Status ShmRecvChannel::peek(Segment* segment) {
  if (!shown_.ready) {
    SlotHeader& from = slot();
    const uint32_t sequence = from.sequence.load(std::memory_order_acquire);
    // What the slot held a round ago, or zero in the first round.
    const uint32_t before = taken_ < slot_count_ ? 0 : sequence_of(taken_ - slot_count_);
    if (sequence != before) COMM_TRY(take(sequence, from));
  }
  *segment = shown_;
  return {};
}

Status ShmRecvChannel::release() {
  if (!shown_.ready)
    return error(Code::kInternal, "release of a segment from rank {} that was not shown",
                 place_.peer);
  shown_ = {};
  ++taken_;
  if (++slot_index_ == slot_count_) slot_index_ = 0;
  header_->released.store(taken_, std::memory_order_release);
  if (place_.fence) full_fence();
  if (header_->credit_wanted.load(std::memory_order_relaxed) != 0) {
    if (place_.fence) full_fence();
    ring(*place_.peer_bell);
  }
  return {};
}

Status ShmRecvChannel::receive_into(const Signature& expected, void* dst, size_t bytes,
                                    bool* done) {
  *done = false;
  Segment segment;
  COMM_TRY(peek(&segment));
  if (!segment.ready) return {};
  if (segment.bytes != bytes || segment.signature != expected)
    return mismatch(place_.my_rank, expected, bytes, place_.peer, segment.signature, segment.bytes);
  if (bytes != 0) std::memcpy(dst, segment.data, bytes);
  *done = true;
  return release();
}

}  // namespace libcomm::shm
