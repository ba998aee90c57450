#include "transports/shm/channel.h"

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "src/base/processor.h"
#include "transports/shm/memory.h"

namespace libcomm::shm {
namespace {

static_assert(sizeof(NoteHead::signature) == sizeof(Signature));

// How many lines of the next note a sender makes its own: more of them are fetched in a row anyway.
constexpr size_t kMostOwned = 8;

// Segment numbers on the wire start at 1; those of heads wrap.
uint64_t number_of(uint64_t index) { return index + 1; }
uint32_t sequence_of(uint64_t index) { return static_cast<uint32_t>(number_of(index)); }

size_t whole_lines(size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// At most kHeadBytes. Copies of constant length where they are usual: a call costs more.
void copy_short(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes == kHeadBytes)
    std::memcpy(to, from, kHeadBytes);
  else if (bytes == sizeof(uint64_t))
    std::memcpy(to, from, sizeof(uint64_t));
  else if (bytes == sizeof(uint32_t))
    std::memcpy(to, from, sizeof(uint32_t));
  else if (bytes > 0)
    std::memcpy(to, from, bytes);
}

// Copies what line `index` of a note carries of a payload: to the line, or from it.
struct LinePart {
  size_t at;
  size_t bytes;

  LinePart(size_t index, size_t payload)
      : at(kHeadBytes + index * Note::kLineBytes),
        bytes(std::min(Note::kLineBytes, payload - at)) {}
  void copy(std::byte* to, const std::byte* from) const {
    if (bytes == Note::kLineBytes)
      std::memcpy(to, from, Note::kLineBytes);
    else
      std::memcpy(to, from, bytes);
  }
};

}  // namespace

ChannelParts::ChannelParts(const ChannelPlace& place)
    : header(reinterpret_cast<ChannelHeader*>(place.extent)),
      notes(reinterpret_cast<Note*>(place.extent + sizeof(ChannelHeader))),
      ring(place.extent + sizeof(ChannelHeader) + kNotes * sizeof(Note)),
      ring_bytes(place.memory->layout().ring_bytes()),
      slot_bytes(place.memory->layout().slot_bytes) {}

ShmSendChannel::ShmSendChannel(ChannelPlace place)
    : place_(std::move(place)),
      parts_(place_),
      sent_(parts_.header->sent.load(std::memory_order_relaxed)),
      // No credit is known of a channel that was used before: the first segment looks.
      released_(sent_ > kNotes ? sent_ - kNotes : 0) {
  if (sent_ > 0) {  // and no room, before all of what was sent has been taken
    oldest_ = sent_ - 1;
    stretches_[oldest_ % kNotes] = {0, parts_.ring_bytes};
  }
  if (place_.open_channels) place_.open_channels->fetch_add(1, std::memory_order_relaxed);
}

ShmSendChannel::~ShmSendChannel() {
  parts_.header->sent.store(sent_, std::memory_order_relaxed);
  if (place_.open_channels) place_.open_channels->fetch_sub(1, std::memory_order_relaxed);
}

Status ShmSendChannel::refresh_credit() {
  const uint64_t released = parts_.header->released.load(std::memory_order_acquire);
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
    parts_.header->credit_wanted.store(1, std::memory_order_release);
    full_fence();
    COMM_TRY(refresh_credit());
  }
  *there = released_ >= wanted;
  if (*there && asked_for_credit_) {
    asked_for_credit_ = false;
    parts_.header->credit_wanted.store(0, std::memory_order_release);
  }
  return {};
}

// A note, and so much of the ring.
Status ShmSendChannel::find_room(size_t bytes, bool* found, size_t* begin) {
  *found = false;
  if (sent_ - released_ == kNotes) {
    bool there = false;
    COMM_TRY(await_release(sent_ - kNotes + 1, &there));
    if (!there) return {};
  }
  if (bytes > 0) return find_stretch(whole_lines(bytes), found, begin);
  *found = true;
  return {};
}

Status ShmSendChannel::find_stretch(size_t bytes, bool* found, size_t* begin) {
  // The receiver may have left the beginning since.
  if (at_ + bytes > kWalk) COMM_TRY(refresh_credit());
  for (;;) {
    *found = fits(bytes, begin);
    if (*found) return {};
    bool there = false;
    COMM_TRY(await_release(oldest_ + 1, &there));
    if (!there) return {};
  }
}

// As far as is known of the receiver. Begins anew behind kWalk, or later where it is not as far.
bool ShmSendChannel::fits(size_t bytes, size_t* begin) {
  const auto is_over = [&](uint64_t segment) {
    return segment < released_ || stretches_[segment % kNotes].bytes == 0;
  };
  while (oldest_ < sent_ && is_over(oldest_)) ++oldest_;
  const bool is_empty = oldest_ == sent_;
  const size_t used_from = is_empty ? 0 : stretches_[oldest_ % kNotes].begin;
  *begin = at_;
  if (!is_empty && at_ <= used_from) return at_ + bytes <= used_from;
  if (at_ + bytes <= std::min(kWalk, parts_.ring_bytes)) return true;
  if (!is_empty && bytes > used_from) return at_ + bytes <= parts_.ring_bytes;
  *begin = 0;
  return bytes <= parts_.ring_bytes;
}

Status ShmSendChannel::reserve(std::byte** result) {
  *result = nullptr;
  if (!reserved_) COMM_TRY(find_room(parts_.slot_bytes, &reserved_, &reserved_at_));
  if (reserved_) *result = parts_.ring + reserved_at_;
  return {};
}

Status ShmSendChannel::commit(const Signature& signature, size_t bytes) {
  if (!reserved_ || bytes > parts_.slot_bytes)
    return error(Code::kInternal, "commit of {} bytes to rank {} without a slot for them ({} each)",
                 bytes, place_.peer, parts_.slot_bytes);
  if (bytes <= kHeadBytes)
    publish_here(signature, parts_.ring + reserved_at_, bytes);
  else
    publish_in_ring(signature, reserved_at_, bytes);
  return {};
}

// The payload goes along.
void ShmSendChannel::publish_here(const Signature& signature, const std::byte* src, size_t bytes) {
  Note& note = parts_.note(sent_);
  copy_short(note.head.payload, src, std::min(bytes, kHeadBytes));
  write_head(signature, bytes, Payload::kHere);
  const size_t lines = Note::lines_for(bytes);
  for (size_t i = 0; i < lines; ++i) {
    const LinePart part(i, bytes);
    part.copy(note.lines[i].payload, src + part.at);
    note.lines[i].sequence.store(number_of(sent_), std::memory_order_release);
  }
  // The receiver looks at the head all the time, and then finds these sooner.
  for (size_t i = 0; i < lines; ++i) demote(&note.lines[i]);
  finish_note();
  // The next message is probably like this one.
  const Note& next = parts_.note(sent_);
  for (size_t i = 0; i < std::min(lines, kMostOwned); ++i) prefetch_for_writing(&next.lines[i]);
}

void ShmSendChannel::publish_in_ring(const Signature& signature, size_t begin, size_t bytes) {
  publish_elsewhere(signature, bytes, {Payload::kRing, {begin, 0}});
  stretches_[(sent_ - 1) % kNotes] = {begin, whole_lines(bytes)};
  at_ = begin + whole_lines(bytes);
}

void ShmSendChannel::publish_elsewhere(const Signature& signature, size_t bytes,
                                       const Reference& reference) {
  static_assert(sizeof reference.words == kHeadBytes);
  std::memcpy(parts_.note(sent_).head.payload, reference.words, kHeadBytes);
  write_head(signature, bytes, reference.where);
  finish_note();
}

// After its payload: the segment has arrived, but for the note's lines.
void ShmSendChannel::write_head(const Signature& signature, size_t bytes, Payload where) {
  NoteHead& head = parts_.note(sent_).head;
  head.bytes = static_cast<uint32_t>(bytes);
  head.where = static_cast<uint64_t>(where);
  std::memcpy(head.signature, &signature, sizeof signature);
  head.sequence.store(sequence_of(sent_), std::memory_order_release);
}

void ShmSendChannel::finish_note() {
  stretches_[sent_ % kNotes] = {};
  ++sent_;
  reserved_ = false;
  if (place_.fence) full_fence();
  ring(*place_.peer_bell);
  // The receiver took the note after this one long ago, and its cursor is needed soon.
  prefetch_for_writing(&parts_.note(sent_).head);
  if (sent_ - released_ == kNotes - 1) prefetch_for_reading(&parts_.header->released);
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
  const bool worth_reading = bytes >= kLeastRead || bytes > parts_.slot_bytes;
  if (place_.same_process || (place_.board->memory_readable() && worth_reading))
    reference = {Payload::kAddress, {reinterpret_cast<uintptr_t>(src), 0}};
  return reference;
}

Status ShmSendChannel::post(const Signature& signature, const void* src, size_t bytes,
                            bool* accepted) {
  size_t begin = 0;
  COMM_TRY(find_room(0, accepted, &begin));
  if (!*accepted) return {};
  if (bytes <= Note::kBytes) {
    publish_here(signature, static_cast<const std::byte*>(src), bytes);
    return {};
  }
  const Reference reference = refer(src, bytes);
  if (reference.where != Payload::kHere) {
    publish_elsewhere(signature, bytes, reference);
    referred_ = sent_;
    return {};
  }
  if (bytes > parts_.slot_bytes)
    return error(Code::kInternal, "{} bytes for rank {} do not fit into a slot of {}", bytes,
                 place_.peer, parts_.slot_bytes);
  COMM_TRY(find_room(bytes, accepted, &begin));
  if (!*accepted) return {};
  copy_bytes(parts_.ring + begin, src, bytes, false);
  publish_in_ring(signature, begin, bytes);
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
  parts_.header->withdrawn.store(1, std::memory_order_seq_cst);
  while (place_.same_process && parts_.header->taking.load(std::memory_order_seq_cst) != 0)
    ::sched_yield();
}

ShmRecvChannel::ShmRecvChannel(ChannelPlace place)
    : place_(std::move(place)),
      parts_(place_),
      taken_(parts_.header->released.load(std::memory_order_relaxed)) {
  if (place_.open_channels) place_.open_channels->fetch_add(1, std::memory_order_relaxed);
}

ShmRecvChannel::~ShmRecvChannel() {
  if (place_.open_channels) place_.open_channels->fetch_sub(1, std::memory_order_relaxed);
}

// Reads the note's head once it has changed.
Status ShmRecvChannel::take(uint32_t sequence, const NoteHead& from) {
  const uint32_t bytes = from.bytes;
  where_ = static_cast<Payload>(from.where);
  const size_t most = where_ == Payload::kHere   ? Note::kBytes
                      : where_ == Payload::kRing ? parts_.slot_bytes
                                                 : receive_bytes();
  if (sequence != sequence_of(taken_) || bytes > most)
    return error(
               Code::kRemote,
               "shared memory is damaged: rank {} sent segment {} of {} bytes where segment {} of "
               "at most {} was due",
               place_.peer, sequence, bytes, sequence_of(taken_), most)
        .with_peer(place_.peer);
  shown_.bytes = bytes;
  std::memcpy(&shown_.signature, from.signature, sizeof shown_.signature);
  COMM_TRY(resolve(from));
  shown_.ready = true;
  return {};
}

// Finds the payload: in memory of this process, or where to read it in the sender's.
Status ShmRecvChannel::resolve(const NoteHead& from) {
  uint64_t words[2];
  static_assert(sizeof words == kHeadBytes);
  std::memcpy(words, from.payload, sizeof words);
  switch (where_) {
    case Payload::kHere:
      shown_.data = shown_.bytes <= kHeadBytes ? from.payload : nullptr;
      return {};
    case Payload::kRing:
      if (words[0] > parts_.ring_bytes || shown_.bytes > parts_.ring_bytes - words[0]) break;
      shown_.data = parts_.ring + words[0];
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
  return error(Code::kRemote, "shared memory is damaged: rank {} sent a segment of kind {} at {}",
               place_.peer, static_cast<uint64_t>(where_), words[0])
      .with_peer(place_.peer);
}

// Copies what the note carries; false when some of its lines are not there yet. Then it goes on
// with the next call.
bool ShmRecvChannel::take_lines(std::byte* dst) {
  const Note& note = parts_.note(taken_);
  copy_short(dst, note.head.payload, std::min(shown_.bytes, kHeadBytes));
  for (const size_t lines = Note::lines_for(shown_.bytes); lines_taken_ < lines; ++lines_taken_) {
    const NoteLine& line = note.lines[lines_taken_];
    if (line.sequence.load(std::memory_order_acquire) != number_of(taken_)) return false;
    const LinePart part(lines_taken_, shown_.bytes);
    part.copy(dst + part.at, line.payload);
  }
  return true;
}

// Reads the payload that is in the sender's process only.
Status ShmRecvChannel::fetch(void* dst) {
  COMM_TRY(place_.board->read_memory(place_.peer_index, dst, address_, shown_.bytes));
  return check_offered();
}

// Notices the next segment, if it is there.
Status ShmRecvChannel::look() {
  if (shown_.ready) return {};
  const NoteHead& from = parts_.note(taken_).head;
  const uint32_t sequence = from.sequence.load(std::memory_order_acquire);
  // What the note held a round ago, or zero in the first round.
  const uint32_t before = taken_ < kNotes ? 0 : sequence_of(taken_ - kNotes);
  return sequence == before ? Status() : take(sequence, from);
}

Status ShmRecvChannel::peek(Segment* segment) {
  *segment = {};
  COMM_TRY(look());
  if (shown_.ready && shown_.data == nullptr) {
    COMM_TRY(staging_.reserve(shown_.bytes));
    if (where_ == Payload::kHere) {
      lines_taken_ = 0;
      const bool all = take_lines(staging_.data());
      lines_taken_ = 0;
      if (!all) return {};
    } else {
      COMM_TRY(fetch(staging_.data()));
    }
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
  lines_taken_ = 0;
  ++taken_;
  parts_.header->released.store(taken_, std::memory_order_release);
  if (place_.fence) full_fence();
  if (parts_.header->credit_wanted.load(std::memory_order_relaxed) != 0) {
    if (place_.fence) full_fence();
    ring(*place_.peer_bell);
  }
  return {};
}

// Copies from another rank's memory in this process, unless that rank has given up meanwhile.
Status ShmRecvChannel::copy_within_process(void* dst) {
  parts_.header->taking.store(1, std::memory_order_seq_cst);
  const Status status = check_offered();
  if (status) copy_bytes(dst, shown_.data, shown_.bytes, stream_);
  parts_.header->taking.store(0, std::memory_order_seq_cst);
  return status;
}

// Has the sender not given up? Asked after a copy of its memory, which it may have reused since.
Status ShmRecvChannel::check_offered() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  if (parts_.header->withdrawn.load(std::memory_order_seq_cst) == 0) return {};
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
  auto* const to = static_cast<std::byte*>(dst);
  switch (where_) {
    case Payload::kHere:
      if (!take_lines(to)) return {};
      break;
    case Payload::kRing:
      copy_bytes(to, shown_.data, bytes, stream_);
      break;
    case Payload::kSegment:
      copy_bytes(to, shown_.data, bytes, stream_);
      COMM_TRY(check_offered());
      break;
    case Payload::kAddress:
      COMM_TRY(place_.same_process ? copy_within_process(to) : fetch(to));
      break;
  }
  *done = true;
  return release();
}

}  // namespace libcomm::shm
