#include "src/execute/board_windows.h"

#include <algorithm>
#include <optional>
#include <thread>

#include "src/reduce/reduce.h"

namespace libcomm {
namespace {

// How many windows must be done with before the buffer of this number is free again.
uint64_t freed_by(uint64_t number) {
  return number < kWindowBuffers ? 0 : number - kWindowBuffers + 1;
}

bool is_at(const std::atomic<uint64_t>& counter, uint64_t needed, uint64_t* seen) {
  if (*seen < needed) *seen = counter.load(std::memory_order_acquire);
  return *seen >= needed;
}

bool is_at(const BoardControl& control, const BoardNeeds& needs, BoardNeeds* seen) {
  return is_at(control.staged, needs.staged, &seen->staged) &&
         is_at(control.reduced, needs.reduced, &seen->reduced) &&
         is_at(control.gathered, needs.gathered, &seen->gathered);
}

}  // namespace

BoardNeeds both(const BoardNeeds& a, const BoardNeeds& b) {
  return {std::max(a.staged, b.staged), std::max(a.reduced, b.reduced),
          std::max(a.gathered, b.gathered)};
}

BoardWindows::BoardWindows(const BoardArgs& args, size_t window)
    : board_(args.board),
      state_(args.state),
      share_cores_(args.share_cores),
      parts_(args.board->parts()),
      me_(args.board->index()),
      staging_(Staging::fit(args.board->part_bytes(), ranks(), window)),
      relaid_(args.state->lay_out(staging_.window)),
      first_(args.state->windows),
      seen_(parts_.size()) {
  for (int i = 0; i < ranks(); ++i)
    if (i != me_ && board_->in_this_process(i)) ++neighbours_;
}

BoardWindows::~BoardWindows() {
  if (ended_) return;
  // Sequentially consistent, as in Use::begin(): either a neighbour sees this, or it is seen here.
  // Ranks in other processes, which are not waited for, look after they have read.
  control(me_).withdrawn.store(1);
  for (int i = 0; i < ranks(); ++i) {
    if (i == me_ || !board_->in_this_process(i)) continue;
    // It copies or adds up a window, and waits for nothing meanwhile.
    while (control(i).using_neighbours.load() != 0) std::this_thread::yield();
  }
}

Status BoardWindows::Use::begin() {
  if (windows_->neighbours_ == 0) return Status::ok();
  begun_ = true;
  windows_->control(windows_->me_).using_neighbours.store(1);
  return windows_->check_owners();
}

Status BoardWindows::check_owners() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  for (int i = 0; i < ranks(); ++i) {
    if (i == me_ || control(i).withdrawn.load() == 0) continue;
    const int rank = board_->ranks()[static_cast<size_t>(i)];
    return error(Code::kRemote, "rank {} has given up the operation", rank).with_peer(rank);
  }
  return Status::ok();
}

BoardWindows::Use::~Use() {
  if (begun_) windows_->control(windows_->me_).using_neighbours.store(0);
}

Access BoardWindows::offer(BufferNote BoardControl::*note, const void* buffer, size_t bytes,
                           bool by_address) {
  Access access = Access::kNone;
  SegmentRef place;
  if (const auto shared = share_buffer(*board_, buffer, bytes)) {
    access = Access::kSegment;
    place = *shared;
  } else if (by_address) {
    access = Access::kAddress;
    place.offset = reinterpret_cast<uintptr_t>(buffer);
  }
  (control(me_).*note).set(first_, access, place);
  return access;
}

Result<PeerBuffer> BoardWindows::reach(int index, const BufferNote& note, size_t bytes) {
  PeerBuffer buffer;
  const Access access = note.access(first_);
  if (access == Access::kSegment) {
    COMM_ASSIGN(buffer.memory, board_->map_segment(index, note.segment, note.offset, bytes));
  } else if (access == Access::kAddress && board_->in_this_process(index)) {
    buffer.memory = reinterpret_cast<std::byte*>(note.offset);
  } else if (access == Access::kAddress) {
    buffer.address = note.offset;
  }
  return buffer;
}

Status BoardWindows::fetch(int index, const PeerBuffer& from, size_t offset, void* to, size_t bytes,
                           bool stream) {
  if (from.memory == nullptr) return board_->read_memory(index, to, from.address + offset, bytes);
  copy_bytes(to, from.memory + offset, bytes, stream);
  return Status::ok();
}

void BoardWindows::begin(uint64_t count) {
  count_ = count;
  state_->windows += count;
}

BoardNeeds BoardWindows::free_input(uint64_t window) const {
  BoardNeeds needs{.reduced = freed_by(first_ + window)};
  if (window == 0 && relaid_) needs.gathered = first_;
  return needs;
}

BoardNeeds BoardWindows::free_result(uint64_t window) const {
  return {.gathered = freed_by(first_ + window)};
}

bool BoardWindows::reached(const BoardNeeds& needs) {
  for (int i = 0; i < ranks(); ++i)
    if (i != me_ && !is_at(control(i), needs, &seen_[static_cast<size_t>(i)])) return false;
  return true;
}

void BoardWindows::short_of(const BoardNeeds& needs, std::vector<int>* ranks_short) const {
  for (int i = 0; i < ranks(); ++i) {
    BoardNeeds seen;
    if (i != me_ && !is_at(control(i), needs, &seen))
      ranks_short->push_back(board_->ranks()[static_cast<size_t>(i)]);
  }
}

void BoardWindows::tell(std::initializer_list<Counter> counters, uint64_t done) {
  for (const Counter counter : counters)
    (control(me_).*counter).store(first_ + done, std::memory_order_release);
  board_->wake_others(share_cores_);
}

}  // namespace libcomm
