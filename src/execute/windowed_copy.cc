#include "src/execute/windowed_copy.h"

#include <algorithm>
#include <optional>

#include "src/reduce/reduce.h"

namespace libcomm {
namespace {

// Least bytes of a block that are worth the system calls of reading it in place.
constexpr size_t kReadBytes = size_t{16} << 10;
// Most bytes of a broadcast, or gathered from all, for which that is so. There staging is half of
// the work, done by others than the one with most to do.
constexpr size_t kMostReadBytes = size_t{128} << 10;
// Most of a block that is read at once, so that a failure elsewhere is noticed meanwhile.
constexpr size_t kReadSlice = size_t{4} << 20;

// Is it worth reading blocks where they are in another process?
bool worth_reading(const Operation& operation, size_t block_bytes, size_t ranks) {
  if (block_bytes < kReadBytes) return false;
  switch (operation.collective) {
    case Collective::kBroadcast:
      return block_bytes * (ranks - 1) <= kMostReadBytes;
    case Collective::kGather:
      return block_bytes * ranks <= kMostReadBytes;
    default:
      return true;
  }
}

}  // namespace

bool windowed_copy_knows(Collective collective) {
  switch (collective) {
    case Collective::kAllGather:
    case Collective::kBroadcast:
    case Collective::kGather:
    case Collective::kScatter:
    case Collective::kAllToAll:
      return true;
    default:
      return false;
  }
}

WindowedCopy::WindowedCopy(const BoardArgs& args, size_t window)
    : args_(args),
      windows_(args, window),
      n_(windows_.ranks()),
      me_(windows_.me()),
      block_bytes_(args.operation->count * size_of(args.operation->type)),
      block_per_peer_(args.operation->collective == Collective::kScatter ||
                      args.operation->collective == Collective::kAllToAll),
      collects_(args.operation->collective != Collective::kBroadcast &&
                args.operation->collective != Collective::kScatter),
      reads_(args.board->memory_readable() &&
             worth_reading(*args.operation, block_bytes_, static_cast<size_t>(n_))),
      // What is read in place need not fit on the board, and is read in few calls.
      slice_bytes_(reads_ ? kReadSlice
                          : windows_.bytes() / static_cast<size_t>(block_per_peer_ ? n_ : 1)),
      in_(static_cast<const std::byte*>(args.operation->in)),
      out_(static_cast<std::byte*>(args.operation->out)),
      stream_(block_bytes_ * static_cast<size_t>(collects_ ? n_ : 1) >= kStreamBytes),
      peers_(static_cast<size_t>(n_)) {
  windows_.begin((block_bytes_ + slice_bytes_ - 1) / slice_bytes_);
}

bool WindowedCopy::offers(int rank) const {
  switch (args_.operation->collective) {
    case Collective::kBroadcast:
    case Collective::kScatter:
      return rank == args_.operation->root;
    case Collective::kGather:
      return rank != args_.operation->root;
    default:
      return true;
  }
}

bool WindowedCopy::takes_from(int rank) const {
  switch (args_.operation->collective) {
    case Collective::kBroadcast:
    case Collective::kScatter:
      return rank == args_.operation->root;
    case Collective::kGather:
      return me_ == args_.operation->root;
    default:
      return true;
  }
}

WindowedCopy::Slice WindowedCopy::slice(uint64_t window) const {
  const size_t begin = window * slice_bytes_;
  return {begin, std::min(slice_bytes_, block_bytes_ - begin)};
}

// Does some rank take from this rank's part of the board?
bool WindowedCopy::is_staged() const {
  if (!offers(me_) || access_ == Access::kSegment) return false;
  return access_ == Access::kNone || (!reads_ && !windows_.all_in_this_process());
}

// Says what this operation is and whether peers may use the input in place.
void WindowedCopy::announce() {
  if (offers(me_)) {
    const bool by_address = reads_ || windows_.reaches_neighbours();
    access_ = windows_.offer(&BoardControl::in, in_, offered_bytes(), by_address);
    in_place_ = windows_.all_reach(access_);
  }
  args_.board->publish(args_.signature);
  announced_ = true;
}

// Once all peers have begun: compares what they are doing and maps what they offer. A peer that is
// in a later operation by now, or about to tell which, has compared this one itself.
Status WindowedCopy::meet_peers() {
  Board& board = *args_.board;
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    const std::optional<Signature> theirs = board.published(i);
    if (theirs && theirs->op <= args_.signature.op && *theirs != args_.signature)
      return mismatch(board.ranks()[static_cast<size_t>(me_)], args_.signature, block_bytes_,
                      board.ranks()[static_cast<size_t>(i)], *theirs, block_bytes_);
    if (!offers(i) || !takes_from(i)) continue;
    const BufferNote& note = windows_.control(i).in;
    COMM_ASSIGN(peers_[static_cast<size_t>(i)], windows_.reach(i, note, offered_bytes()));
    in_place_ = in_place_ && windows_.all_reach(note.access(windows_.first()));
  }
  met_ = true;
  return Status::ok();
}

void WindowedCopy::stage() {
  const Slice part = slice(staged_);
  if (is_staged()) {
    std::byte* to = windows_.input(me_, staged_);
    if (block_per_peer_) {
      for (int i = 0; i < n_; ++i) {
        const size_t block = static_cast<size_t>(i);
        if (i != me_)
          copy_bytes(to + block * slice_bytes_, in_ + block * block_bytes_ + part.begin, part.bytes,
                     false);
      }
    } else {
      copy_bytes(to, in_ + part.begin, part.bytes, false);
    }
  }
  ++staged_;
  windows_.tell({&BoardControl::staged}, staged_);
  // While the others come to this window, too.
  if (takes_from(me_)) take_own(part);
}

void WindowedCopy::take_own(const Slice& part) {
  const size_t me = static_cast<size_t>(me_);
  const std::byte* from = in_ + (block_per_peer_ ? me * block_bytes_ : 0) + part.begin;
  std::byte* to = out_ + (collects_ ? me * block_bytes_ : 0) + part.begin;
  if (from != to) copy_bytes(to, from, part.bytes, stream_);
}

Status WindowedCopy::take_from(int index, const Slice& part) {
  const size_t source = static_cast<size_t>(index);
  // Where the block is among those that the source offers, and among those that this rank collects.
  const size_t block = block_per_peer_ ? static_cast<size_t>(me_) : 0;
  std::byte* to = out_ + (collects_ ? source * block_bytes_ : 0) + part.begin;
  const size_t in_whole = block * block_bytes_ + part.begin;
  const PeerBuffer& peer = peers_[source];
  if (peer.memory != nullptr || (peer.address != 0 && reads_))
    return windows_.fetch(index, peer, in_whole, to, part.bytes, stream_);
  copy_bytes(to, windows_.input(index, taken_) + block * slice_bytes_, part.bytes, stream_);
  return Status::ok();
}

Status WindowedCopy::take() {
  const Slice part = slice(taken_);
  BoardWindows::Use use(&windows_);
  COMM_TRY(use.begin());
  // Begin after this rank, so that not all ranks read the same memory at once.
  for (int k = 1; k < n_; ++k) {
    const int i = (me_ + k) % n_;
    if (takes_from(i)) COMM_TRY(take_from(i, part));
  }
  COMM_TRY(windows_.check_owners());
  ++taken_;
  // Both: the windows of other operations count on either.
  windows_.tell({&BoardControl::reduced, &BoardControl::gathered}, taken_);
  return Status::ok();
}

// Whoever is short of what the next stage() or take(), or the end, needs.
void WindowedCopy::awaited_peers(std::vector<int>* peers) const {
  BoardNeeds needs;
  if (staged_ < windows_.count()) needs = both(needs, windows_.free_input(staged_));
  if (taken_ < staged_) needs = both(needs, windows_.staged(taken_));
  if (taken_ == windows_.count()) needs = both(needs, to_end());
  windows_.short_of(needs, peers);
}

Status WindowedCopy::advance(Progress* progress) {
  *progress = Progress::kMoved;
  if (!announced_) announce();
  // Two windows ahead, so that peers find their data when they look.
  if (staged_ - taken_ < 2 && can_stage()) {
    stage();
  } else if (can_take()) {
    if (!met_) COMM_TRY(meet_peers());
    COMM_TRY(take());
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
