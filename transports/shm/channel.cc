#include "transports/shm/channel.h"

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "src/reduce/reduce.h"
#include "transports/shm/memory.h"

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

// Has the receiver released as many segments as `wanted`? If not, it has been asked to say when.
Status ShmSendChannel::await_release(uint64_t wanted, bool* there) {
  if (released_ < wanted) COMM_TRY(refresh_credit());
  if (released_ < wanted && !asked_for_credit_) {
    // Ask to be woken, then look again: the receiver may have released before it could see this.
    asked_for_credit_ = true;
    header_->credit_wanted.store(1, std::memory_order_release);
    full_fence();
    COMM_TRY(refresh_credit());
  }
  *there = released_ >= wanted;
  if (*there && asked_for_credit_) {
    asked_for_credit_ = false;
    header_->credit_wanted.store(0, std::memory_order_release);
  }
  return {};
}

Status ShmSendChannel::reserve(std::byte** result) {
  *result = nullptr;
  if (sent_ - released_ == slot_count_) {
    bool there = false;
    COMM_TRY(await_release(sent_ - slot_count_ + 1, &there));
    if (!there) return {};
  }
  reserved_ = true;
  *result = body_of(slot());
  return {};
}

Status ShmSendChannel::publish(const Signature& signature, size_t bytes,
                               const Reference& reference) {
  if (!reserved_ || (reference.where == Payload::kHere && bytes > slot_bytes_))
    return error(Code::kInternal, "commit of {} bytes to rank {} without a slot for them ({} each)",
                 bytes, place_.peer, slot_bytes_);
  SlotHeader& to = slot();
  if (reference.where != Payload::kHere)
    std::memcpy(to.payload, reference.words, sizeof reference.words);
  else if (bytes <= kInlineBytes)
    copy_inline(to, bytes);
  to.bytes = static_cast<uint32_t>(bytes);
  to.where = static_cast<uint64_t>(reference.where);
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

Status ShmSendChannel::commit(const Signature& signature, size_t bytes) {
  return publish(signature, bytes, Reference());
}

ShmSendChannel::Reference ShmSendChannel::refer(const void* src, size_t bytes) {
  Reference reference;
  if (place_.board == nullptr || bytes < kLeastMapped) return reference;
  if (!place_.same_process && place_.board->segments_mappable()) {
    // No other segment gives way to this one: its reference may not have been looked at yet.
    const auto place = find_segment(src, bytes);
    if (place && place_.board->share_segment(place->segment, false)) {
      reference = {Payload::kSegment, {place->segment, place->offset}};
      return reference;
    }
  }
  const bool worth_reading = bytes >= kLeastRead || bytes > slot_bytes_;
  if (place_.same_process || (place_.board->memory_readable() && worth_reading))
    reference = {Payload::kAddress, {reinterpret_cast<uintptr_t>(src), 0}};
  return reference;
}

Status ShmSendChannel::post(const Signature& signature, const void* src, size_t bytes,
                            bool* accepted) {
  *accepted = false;
  std::byte* to = nullptr;
  COMM_TRY(reserve(&to));
  if (to == nullptr) return {};
  const Reference reference = refer(src, bytes);
  if (reference.where == Payload::kHere) {
    if (bytes > slot_bytes_)
      return error(Code::kInternal, "{} bytes for rank {} do not fit into a slot of {}", bytes,
                   place_.peer, slot_bytes_);
    copy_bytes(to, src, bytes, false);
  }
  COMM_TRY(publish(signature, bytes, reference));
  if (reference.where != Payload::kHere) referred_ = sent_;
  *accepted = true;
  return {};
}

// What was copied is complete at once, unless something before it is not.
Status ShmSendChannel::progress(uint64_t* completed) {
  bool all_taken = true;
  if (referred_ > released_) COMM_TRY(await_release(referred_, &all_taken));
  completed_ = all_taken ? sent_ : std::max(completed_, released_);
  *completed = completed_ - sent_before_;
  return {};
}

// A receiver that copies meanwhile looks at `withdrawn` afterwards. Only one in this process could
// read memory that is about to be freed, and is waited for: elsewhere the kernel, or a mapping of
// its own, stands in between. It is in one copy of one segment at most.
void ShmSendChannel::withdraw() {
  if (referred_ <= released_) return;
  header_->withdrawn.store(1, std::memory_order_seq_cst);
  while (place_.same_process && header_->taking.load(std::memory_order_seq_cst) != 0)
    ::sched_yield();
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
  const auto where = static_cast<Payload>(from.where);
  const size_t most = where == Payload::kHere ? slot_bytes_ : receive_bytes();
  if (sequence != sequence_of(taken_) || bytes > most)
    return error(
               Code::kRemote,
               "shared memory is damaged: rank {} sent segment {} of {} bytes where segment {} of "
               "at most {} was due",
               place_.peer, sequence, bytes, sequence_of(taken_), most)
        .with_peer(place_.peer);
  shown_.bytes = bytes;
  std::memcpy(&shown_.signature, from.signature, sizeof shown_.signature);
  COMM_TRY(resolve(where, from));
  shown_.ready = true;
  return {};
}

// Finds the payload: in this process's memory, or where to read it in the sender's.
Status ShmRecvChannel::resolve(Payload where, const SlotHeader& from) {
  uint64_t words[2];
  static_assert(sizeof words == kInlineBytes);
  std::memcpy(words, from.payload, sizeof words);
  switch (where) {
    case Payload::kHere:
      shown_.data =
          shown_.bytes <= kInlineBytes ? from.payload : body_of(const_cast<SlotHeader&>(from));
      return {};
    case Payload::kSegment: {
      if (place_.board == nullptr) break;
      COMM_ASSIGN(shown_.data,
                  place_.board->map_segment(place_.peer_index, words[0], words[1], shown_.bytes));
      return {};
    }
    case Payload::kAddress:
      if (place_.same_process) {
        shown_.data = reinterpret_cast<const std::byte*>(words[0]);
        return {};
      }
      if (place_.board == nullptr || !place_.board->memory_readable()) break;
      shown_.data = nullptr;
      address_ = words[0];
      return {};
  }
  return error(Code::kRemote, "shared memory is damaged: rank {} sent a segment of kind {}",
               place_.peer, static_cast<uint64_t>(where))
      .with_peer(place_.peer);
}

// Reads the payload that is in the sender's process only.
Status ShmRecvChannel::fetch(void* dst) {
  COMM_TRY(place_.board->read_memory(place_.peer_index, dst, address_, shown_.bytes));
  return check_offered();
}

// Notices the next segment, if it is there.
Status ShmRecvChannel::look() {
  if (shown_.ready) return {};
  SlotHeader& from = slot();
  const uint32_t sequence = from.sequence.load(std::memory_order_acquire);
  // What the slot held a round ago, or zero in the first round.
  const uint32_t before = taken_ < slot_count_ ? 0 : sequence_of(taken_ - slot_count_);
  return sequence == before ? Status() : take(sequence, from);
}

Status ShmRecvChannel::peek(Segment* segment) {
  COMM_TRY(look());
  if (shown_.ready && shown_.data == nullptr) {
    COMM_TRY(staging_.reserve(shown_.bytes));
    COMM_TRY(fetch(staging_.data()));
    shown_.data = staging_.data();
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

// Copies from another rank's memory in this process, unless that rank has given up meanwhile.
Status ShmRecvChannel::copy_within_process(void* dst) {
  header_->taking.store(1, std::memory_order_seq_cst);
  const Status status = check_offered();
  if (status) copy_bytes(dst, shown_.data, shown_.bytes, false);
  header_->taking.store(0, std::memory_order_seq_cst);
  return status;
}

// Has the sender not given up? Asked after a copy of its memory, which it may have reused since.
Status ShmRecvChannel::check_offered() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  if (header_->withdrawn.load(std::memory_order_seq_cst) == 0) return {};
  return error(Code::kRemote, "rank {} gave up sending a message", place_.peer)
      .with_peer(place_.peer);
}

Status ShmRecvChannel::receive_into(const Signature& expected, void* dst, size_t bytes,
                                    bool* done) {
  *done = false;
  COMM_TRY(look());
  if (!shown_.ready) return {};
  if (shown_.bytes != bytes || shown_.signature != expected)
    return mismatch(place_.my_rank, expected, bytes, place_.peer, shown_.signature, shown_.bytes);
  const bool is_here = slot().where == static_cast<uint64_t>(Payload::kHere);
  if (shown_.data == nullptr) {
    COMM_TRY(fetch(dst));
  } else if (place_.same_process && !is_here) {
    COMM_TRY(copy_within_process(dst));
  } else if (bytes != 0) {
    copy_bytes(dst, shown_.data, bytes, false);
    if (!is_here) COMM_TRY(check_offered());
  }
  *done = true;
  return release();
}

}  // namespace libcomm::shm
