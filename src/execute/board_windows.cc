#include "src/execute/board_windows.h"

#include <algorithm>

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

std::optional<SegmentRef> share_buffer(Board& board, const void* buffer, size_t bytes) {
  if (!board.segments_mappable()) return std::nullopt;
  const std::optional<SegmentRef> place = find_segment(buffer, bytes);
  if (!place || !board.share_segment(place->segment)) return std::nullopt;
  return place;
}

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
      seen_(parts_.size()) {}

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
