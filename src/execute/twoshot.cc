#include "src/execute/twoshot.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace libcomm {
Twoshot::Twoshot(const BoardArgs& args, size_t window)
    : args_(args),
      windows_(args, window),
      n_(windows_.ranks()),
      me_(windows_.me()),
      bytes_(args.operation->count * size_of(args.operation->type)),
      in_(static_cast<const std::byte*>(args.operation->in)),
      out_(static_cast<std::byte*>(args.operation->out)),
      stream_(bytes_ >= kStreamBytes),
      peers_(static_cast<size_t>(n_)),
      sources_(static_cast<size_t>(n_)) {
  windows_.begin((bytes_ + windows_.bytes() - 1) / windows_.bytes());
}

// The share of `owner` in a window: a run of bytes of the user's buffers.
Twoshot::Range Twoshot::share(uint64_t window, int owner) const {
  const size_t begin = window * windows_.bytes();
  const size_t length = std::min(windows_.bytes(), bytes_ - begin);
  const size_t ranks = static_cast<size_t>(n_);
  const size_t each = ((length + ranks - 1) / ranks + kLine - 1) / kLine * kLine;
  const size_t from = std::min(each * static_cast<size_t>(owner), length);
  const size_t to = std::min(from + each, length);
  return {begin + from, to - from};
}

// Says what this operation is and which of its buffers peers may use in place.
void Twoshot::announce() {
  Board& board = *args_.board;
  BoardControl& control = windows_.control(me_);
  const auto note = [&](const void* buffer, BufferNote* where) {
    const auto place = share_buffer(board, buffer, bytes_);
    where->set(windows_.first(), place ? Access::kSegment : Access::kNone,
               place.value_or(SegmentRef{}));
    return place.has_value();
  };
  in_mapped_ = note(in_, &control.in);
  out_mapped_ = note(out_, &control.out);
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
    const BoardControl& control = windows_.control(i);
    if (control.in.access(windows_.first()) == Access::kSegment) {
      COMM_ASSIGN(peer.in, board.map_segment(i, control.in.segment, control.in.offset, bytes_));
    }
    if (control.out.access(windows_.first()) == Access::kSegment) {
      COMM_ASSIGN(peer.out, board.map_segment(i, control.out.segment, control.out.offset, bytes_));
    } else {
      all_out_mapped_ = false;
    }
  }
  met_ = true;
  return Status::ok();
}

void Twoshot::stage() {
  if (!in_mapped_) {
    std::byte* to = windows_.input(me_, staged_);
    const size_t window_begin = staged_ * windows_.bytes();
    for (int owner = 0; owner < n_; ++owner) {
      if (owner == me_) continue;
      const Range range = share(staged_, owner);
      if (range.bytes > 0)
        copy_bytes(to + (range.begin - window_begin), in_ + range.begin, range.bytes, false);
    }
  }
  ++staged_;
  windows_.tell({&BoardControl::staged}, staged_);
}

void Twoshot::reduce() {
  const Range range = share(reduced_, me_);
  if (range.bytes > 0) {
    const size_t in_window = range.begin - reduced_ * windows_.bytes();
    for (int i = 0; i < n_; ++i) {
      const Peer& peer = peers_[static_cast<size_t>(i)];
      sources_[static_cast<size_t>(i)] = i == me_ ? in_ + range.begin
                                         : peer.in != nullptr
                                             ? peer.in + range.begin
                                             : windows_.input(i, reduced_) + in_window;
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
      work.dst2 = windows_.result(me_, reduced_);
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
  windows_.tell({&BoardControl::reduced}, reduced_);
}

void Twoshot::gather() {
  if (!out_mapped_) {
    for (int owner = 0; owner < n_; ++owner) {
      if (owner == me_) continue;
      const Range range = share(gathered_, owner);
      if (range.bytes == 0) continue;
      copy_bytes(out_ + range.begin, windows_.result(owner, gathered_), range.bytes, stream_);
    }
  }
  ++gathered_;
  windows_.tell({&BoardControl::gathered}, gathered_);
}

// Whoever is short of what the next stage(), reduce() or gather() needs.
void Twoshot::awaited_peers(std::vector<int>* peers) const {
  BoardNeeds needs;
  if (staged_ < windows_.count()) needs = both(needs, to_stage());
  if (reduced_ < staged_) needs = both(needs, to_reduce());
  if (gathered_ < reduced_) needs = both(needs, to_gather());
  windows_.short_of(needs, peers);
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
    if (gathered_ == windows_.count()) *progress = Progress::kDone;
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
