#include "src/execute/twoshot.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace libcomm {
namespace {

// From here on an output is not going to be in the cache when the caller reads it.
constexpr size_t kStreamBytes = size_t{16} << 20;

}  // namespace

Twoshot::Twoshot(const BoardArgs& args, size_t window)
    : args_(args),
      n_(static_cast<int>(args.board->ranks().size())),
      me_(args.board->index()),
      bytes_(args.operation->count * size_of(args.operation->type)),
      staging_(Staging::fit(args.board->part_bytes(), n_, window)),
      relaid_(args.state->lay_out(staging_.window)),
      first_(args.state->windows),
      windows_((bytes_ + staging_.window - 1) / staging_.window),
      in_(static_cast<const std::byte*>(args.operation->in)),
      out_(static_cast<std::byte*>(args.operation->out)),
      stream_(bytes_ >= kStreamBytes),
      peers_(static_cast<size_t>(n_)),
      sources_(static_cast<size_t>(n_)) {
  args_.state->windows += windows_;
  for (int i = 0; i < n_; ++i) peers_[static_cast<size_t>(i)].part = args_.board->part(i);
}

// The share of `owner` in a window: a run of bytes of the user's buffers.
Twoshot::Range Twoshot::share(uint64_t window, int owner) const {
  const size_t begin = window * staging_.window;
  const size_t length = std::min(staging_.window, bytes_ - begin);
  const size_t ranks = static_cast<size_t>(n_);
  const size_t each = ((length + ranks - 1) / ranks + kLine - 1) / kLine * kLine;
  const size_t from = std::min(each * static_cast<size_t>(owner), length);
  const size_t to = std::min(from + each, length);
  return {begin + from, to - from};
}

void Twoshot::tell(std::atomic<uint64_t>& counter, uint64_t value) {
  counter.store(value, std::memory_order_release);
  args_.board->wake_others(args_.share_cores);
}

// Says what this operation is and which of its buffers peers may use in place.
void Twoshot::announce() {
  Board& board = *args_.board;
  BoardControl& control = board_control(peers_[static_cast<size_t>(me_)].part);
  const auto tell = [&](const void* buffer, BufferNote* note) {
    std::optional<SegmentRef> place;
    if (board.segments_mappable()) place = find_segment(buffer, bytes_);
    if (place && !board.share_segment(place->segment)) place.reset();
    note->set(first_, place ? Access::kSegment : Access::kNone, place.value_or(SegmentRef{}));
    return place.has_value();
  };
  in_mapped_ = tell(in_, &control.in);
  out_mapped_ = tell(out_, &control.out);
  board.publish(args_.signature);
  announced_ = true;
}

// Once all peers have begun: compares what they are doing and maps what they offer.
Status Twoshot::meet_peers() {
  Board& board = *args_.board;
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    Peer& peer = peers_[static_cast<size_t>(i)];
    const Signature theirs = board.published(i);
    const int rank = board.ranks()[static_cast<size_t>(i)];
    if (!(theirs == args_.signature))
      return mismatch(board.ranks()[static_cast<size_t>(me_)], args_.signature, bytes_, rank,
                      theirs, bytes_);
    const BoardControl& control = board_control(peer.part);
    if (control.in.access(first_) == Access::kSegment) {
      COMM_ASSIGN(peer.in, board.map_segment(i, control.in.segment, control.in.offset, bytes_));
    }
    if (control.out.access(first_) == Access::kSegment) {
      COMM_ASSIGN(peer.out, board.map_segment(i, control.out.segment, control.out.offset, bytes_));
    } else {
      all_out_mapped_ = false;
    }
  }
  met_ = true;
  return Status::ok();
}

void Twoshot::stage() {
  std::byte* part = peers_[static_cast<size_t>(me_)].part;
  if (!in_mapped_) {
    std::byte* to = staging_.input(part, first_ + staged_);
    const size_t window_begin = staged_ * staging_.window;
    for (int owner = 0; owner < n_; ++owner) {
      if (owner == me_) continue;
      const Range range = share(staged_, owner);
      if (range.bytes > 0)
        copy_bytes(to + (range.begin - window_begin), in_ + range.begin, range.bytes, false);
    }
  }
  ++staged_;
  tell(board_control(part).staged, first_ + staged_);
}

void Twoshot::reduce() {
  std::byte* part = peers_[static_cast<size_t>(me_)].part;
  const Range range = share(reduced_, me_);
  if (range.bytes > 0) {
    const size_t in_window = range.begin - reduced_ * staging_.window;
    for (int i = 0; i < n_; ++i) {
      const Peer& peer = peers_[static_cast<size_t>(i)];
      sources_[static_cast<size_t>(i)] =
          i == me_             ? in_ + range.begin
          : peer.in != nullptr ? peer.in + range.begin
                               : staging_.input(peer.part, first_ + reduced_) + in_window;
    }
    ReduceArgs work;
    work.dst = out_ + range.begin;
    work.sources = sources_.data();
    work.source_count = n_;
    work.count = range.bytes / size_of(args_.operation->type);
    work.divisor = args_.operation->average ? n_ : 1;
    work.stream_dst = stream_;
    // The second destination: the board, for peers that gather, or the one peer's output.
    int direct = -1;
    if (!all_out_mapped_) {
      work.dst2 = staging_.result(part, first_ + reduced_);
    } else {
      direct = me_ == 0 ? 1 : 0;
      work.dst2 = peers_[static_cast<size_t>(direct)].out + range.begin;
      work.stream_dst2 = stream_;
    }
    reduce_with(args_.pool, args_.kernel, work, size_of(args_.operation->type));
    for (int i = 0; i < n_; ++i) {
      std::byte* out = peers_[static_cast<size_t>(i)].out;
      if (i != me_ && i != direct && out != nullptr)
        copy_bytes(out + range.begin, out_ + range.begin, range.bytes, stream_);
    }
  }
  ++reduced_;
  tell(board_control(part).reduced, first_ + reduced_);
}

void Twoshot::gather() {
  if (!out_mapped_) {
    for (int owner = 0; owner < n_; ++owner) {
      if (owner == me_) continue;
      const Range range = share(gathered_, owner);
      if (range.bytes == 0) continue;
      copy_bytes(out_ + range.begin,
                 staging_.result(peers_[static_cast<size_t>(owner)].part, first_ + gathered_),
                 range.bytes, stream_);
    }
  }
  ++gathered_;
  tell(board_control(peers_[static_cast<size_t>(me_)].part).gathered, first_ + gathered_);
}

bool Twoshot::reached(std::atomic<uint64_t> BoardControl::*counter, uint64_t Peer::*seen,
                      uint64_t value) {
  for (int i = 0; i < n_; ++i) {
    Peer& peer = peers_[static_cast<size_t>(i)];
    if (i == me_ || peer.*seen >= value) continue;
    peer.*seen = (board_control(peer.part).*counter).load(std::memory_order_acquire);
    if (peer.*seen < value) return false;
  }
  return true;
}

// Whose counters are short of what the next stage(), reduce() or gather() needs.
void Twoshot::awaited_peers(std::vector<int>* peers) const {
  const auto reusable = [](uint64_t number) {
    return number < kWindowBuffers ? 0 : number - kWindowBuffers + 1;
  };
  uint64_t staged = 0, reduced = 0, gathered = 0;
  if (staged_ < windows_) reduced = reusable(first_ + staged_);
  if (staged_ == 0 && relaid_) gathered = first_;
  if (reduced_ < staged_) {
    staged = first_ + reduced_ + 1;
    gathered = std::max(gathered, reusable(first_ + reduced_));
  }
  if (gathered_ < reduced_) reduced = std::max(reduced, first_ + gathered_ + 1);
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    const BoardControl& control = board_control(peers_[static_cast<size_t>(i)].part);
    const auto is_short = [](const std::atomic<uint64_t>& counter, uint64_t needed) {
      return counter.load(std::memory_order_acquire) < needed;
    };
    if (is_short(control.staged, staged) || is_short(control.reduced, reduced) ||
        is_short(control.gathered, gathered))
      peers->push_back(args_.board->ranks()[static_cast<size_t>(i)]);
  }
}

// A buffer may be used again kWindowBuffers windows later, when its readers are done.
bool Twoshot::can_stage() {
  const uint64_t number = first_ + staged_;
  if (staged_ == 0 && relaid_ && !reached(&BoardControl::gathered, &Peer::gathered, first_))
    return false;
  return staged_ < windows_ &&
         (number < kWindowBuffers ||
          reached(&BoardControl::reduced, &Peer::reduced, number - kWindowBuffers + 1));
}

bool Twoshot::can_reduce() {
  const uint64_t number = first_ + reduced_;
  return reduced_ < staged_ && reached(&BoardControl::staged, &Peer::staged, number + 1) &&
         (number < kWindowBuffers ||
          reached(&BoardControl::gathered, &Peer::gathered, number - kWindowBuffers + 1));
}

bool Twoshot::can_gather() {
  return gathered_ < reduced_ &&
         reached(&BoardControl::reduced, &Peer::reduced, first_ + gathered_ + 1);
}

Status Twoshot::advance(Progress* progress) {
  *progress = Progress::kMoved;
  if (!announced_) announce();
  // Stay a little ahead with staging and reducing, so that peers find their data when they look.
  if (staged_ - reduced_ < 2 && can_stage()) {
    stage();
  } else if (reduced_ - gathered_ < 2 && can_reduce()) {
    if (!met_) COMM_TRY(meet_peers());
    reduce();
  } else if (can_gather()) {
    gather();
    if (gathered_ == windows_) *progress = Progress::kDone;
  } else if (met_ && can_reduce()) {
    reduce();
  } else if (can_stage()) {
    stage();
  } else {
    *progress = Progress::kStuck;
  }
  return Status::ok();
}

}  // namespace libcomm
