#include "src/execute/windowed_reduction.h"

#include <algorithm>

namespace libcomm {

bool windowed_reduction_knows(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kReduce:
      return true;
    default:
      return false;
  }
}

WindowedReduction::WindowedReduction(const BoardArgs& args, size_t window)
    : args_(args),
      windows_(args, window),
      n_(windows_.ranks()),
      me_(windows_.me()),
      block_bytes_(args.operation->count * size_of(args.operation->type)),
      in_bytes_(block_bytes_ * static_cast<size_t>(scatters() ? n_ : 1)),
      in_(static_cast<const std::byte*>(args.operation->in)),
      out_(static_cast<std::byte*>(args.operation->out)),
      stream_(in_bytes_ >= kStreamBytes),
      peers_(static_cast<size_t>(n_)),
      sources_(static_cast<size_t>(n_)) {
  if (args.operation->collective == Collective::kReduce) {
    const auto ranks = args.board->ranks();
    root_ = static_cast<int>(std::find(ranks.begin(), ranks.end(), args.operation->root) -
                             ranks.begin());
  }
  windows_.begin((in_bytes_ + windows_.bytes() - 1) / windows_.bytes());
}

bool WindowedReduction::is_written_by(int index) const {
  return out_access_ == Access::kSegment ||
         (out_access_ == Access::kAddress && windows_.in_this_process(index));
}

// The share of `owner` in a window: a run of bytes of every rank's input.
WindowedReduction::Range WindowedReduction::share(uint64_t window, int owner) const {
  const size_t ranks = static_cast<size_t>(n_);
  const size_t index = static_cast<size_t>(owner);
  if (scatters()) {
    const size_t slice = windows_.bytes() / ranks;
    const size_t from = std::min(window * slice, block_bytes_);
    return {index * block_bytes_ + from, std::min(slice, block_bytes_ - from)};
  }
  const size_t begin = window * windows_.bytes();
  const size_t length = std::min(windows_.bytes(), in_bytes_ - begin);
  if (root_ >= 0) return {begin, owner == root_ ? length : 0};
  const size_t each = ((length + ranks - 1) / ranks + kLine - 1) / kLine * kLine;
  const size_t from = std::min(each * index, length);
  const size_t to = std::min(from + each, length);
  return {begin + from, to - from};
}

// Where it lies in a staged window.
size_t WindowedReduction::place_in_window(uint64_t window, int owner) const {
  if (scatters()) return windows_.bytes() / static_cast<size_t>(n_) * static_cast<size_t>(owner);
  return share(window, owner).begin - window * windows_.bytes();
}

// Says what this operation is and how peers may use its buffers.
void WindowedReduction::announce() {
  const bool neighbours = windows_.reaches_neighbours();
  in_access_ = windows_.offer(&BoardControl::in, in_, in_bytes_, neighbours);
  if (collects()) out_access_ = windows_.offer(&BoardControl::out, out_, block_bytes_, neighbours);
  in_place_ = windows_.all_reach(in_access_) && (!collects() || windows_.all_reach(out_access_));
  args_.board->publish(args_.signature);
  announced_ = true;
}

// Once all peers have begun: compares what they are doing and finds what they offer. A peer that is
// in a later operation by now, or about to tell which, has compared this one itself.
Status WindowedReduction::meet_peers() {
  Board& board = *args_.board;
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    Peer& peer = peers_[static_cast<size_t>(i)];
    const std::optional<Signature> theirs = board.published(i);
    if (theirs && theirs->op <= args_.signature.op && *theirs != args_.signature)
      return mismatch(board.ranks()[static_cast<size_t>(me_)], args_.signature, in_bytes_,
                      board.ranks()[static_cast<size_t>(i)], *theirs, in_bytes_);
    const BoardControl& control = windows_.control(i);
    COMM_ASSIGN(const PeerBuffer in, windows_.reach(i, control.in, in_bytes_));
    peer.in = in.memory;
    in_place_ = in_place_ && windows_.all_reach(control.in.access(windows_.first()));
    if (!collects()) continue;
    COMM_ASSIGN(const PeerBuffer out, windows_.reach(i, control.out, block_bytes_));
    peer.out = out.memory;
    to_board_ = to_board_ || out.memory == nullptr;
    in_place_ = in_place_ && windows_.all_reach(control.out.access(windows_.first()));
  }
  met_ = true;
  return Status::ok();
}

void WindowedReduction::stage() {
  if (!windows_.all_reach(in_access_)) {
    std::byte* to = windows_.input(me_, staged_);
    for (int owner = 0; owner < n_; ++owner) {
      if (owner == me_) continue;
      const Range range = share(staged_, owner);
      copy_bytes(to + place_in_window(staged_, owner), in_ + range.begin, range.bytes, false);
    }
  }
  ++staged_;
  windows_.tell({&BoardControl::staged}, staged_);
}

Status WindowedReduction::reduce() {
  const Range range = share(reduced_, me_);
  if (range.bytes > 0) {
    BoardWindows::Use use(&windows_);
    COMM_TRY(use.begin());
    reduce_share(range);
    COMM_TRY(windows_.check_owners());
  }
  ++reduced_;
  if (collects()) {
    windows_.tell({&BoardControl::reduced}, reduced_);
  } else {
    gathered_ = reduced_;
    windows_.tell({&BoardControl::reduced, &BoardControl::gathered}, reduced_);
  }
  return Status::ok();
}

void WindowedReduction::reduce_share(const Range& range) {
  for (int i = 0; i < n_; ++i) {
    const std::byte* in = i == me_ ? in_ : peers_[static_cast<size_t>(i)].in;
    sources_[static_cast<size_t>(i)] =
        in != nullptr ? in + range.begin
                      : windows_.input(i, reduced_) + place_in_window(reduced_, me_);
  }
  ReduceArgs work;
  work.sources = sources_.data();
  work.source_count = n_;
  work.count = range.bytes / size_of(args_.operation->type);
  work.divisor = args_.operation->average ? n_ : 1;
  work.dst = out_ + range.begin - (scatters() ? static_cast<size_t>(me_) * block_bytes_ : 0);
  work.stream_dst = stream_;
  // The second place is written while the result is at hand; further ones get copies.
  int next = 0;
  const auto next_output = [&]() -> std::byte* {
    while (next < n_ && peers_[static_cast<size_t>(next)].out == nullptr) ++next;
    return next < n_ ? peers_[static_cast<size_t>(next++)].out + range.begin : nullptr;
  };
  if (to_board_) {
    work.dst2 = windows_.result(me_, reduced_);
  } else {
    work.dst2 = next_output();
    work.stream_dst2 = stream_;
  }
  reduce_with(args_.pool, args_.kernel, work, size_of(args_.operation->type));
  while (std::byte* out = next_output()) copy_bytes(out, work.dst, range.bytes, stream_);
}

void WindowedReduction::gather() {
  for (int owner = 0; owner < n_; ++owner) {
    if (owner == me_ || is_written_by(owner)) continue;
    const Range range = share(gathered_, owner);
    copy_bytes(out_ + range.begin, windows_.result(owner, gathered_), range.bytes, stream_);
  }
  ++gathered_;
  windows_.tell({&BoardControl::gathered}, gathered_);
}

// The others have read this rank's input, and written its output.
BoardNeeds WindowedReduction::to_end() const {
  if (in_access_ == Access::kNone && out_access_ == Access::kNone) return {};
  return windows_.reduced(windows_.count() - 1);
}

// Whoever is short of what the next stage(), reduce() or gather(), or the end, needs.
void WindowedReduction::awaited_peers(std::vector<int>* peers) const {
  BoardNeeds needs;
  if (staged_ < windows_.count()) needs = both(needs, to_stage());
  if (reduced_ < staged_) needs = both(needs, to_reduce());
  if (gathered_ < reduced_) needs = both(needs, to_gather());
  if (gathered_ == windows_.count()) needs = both(needs, to_end());
  windows_.short_of(needs, peers);
}

Status WindowedReduction::advance(Progress* progress) {
  *progress = Progress::kMoved;
  if (!announced_) announce();
  // Stay a little ahead with staging and reducing, so that peers find their data when they look.
  if (staged_ - reduced_ < 2 && can_stage()) {
    stage();
  } else if (reduced_ - gathered_ < 2 && can_reduce()) {
    if (!met_) COMM_TRY(meet_peers());
    COMM_TRY(reduce());
  } else if (can_gather()) {
    gather();
  } else if (met_ && can_reduce()) {
    COMM_TRY(reduce());
  } else if (can_stage()) {
    stage();
  } else if (!can_end()) {
    *progress = Progress::kStuck;
    return Status::ok();
  }
  if (can_end()) {
    windows_.end();
    *progress = Progress::kDone;
  }
  return Status::ok();
}

}  // namespace libcomm
