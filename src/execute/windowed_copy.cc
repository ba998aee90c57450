#include "src/execute/windowed_copy.h"

#include <algorithm>
#include <optional>

#include "src/reduce/reduce.h"

namespace libcomm {
namespace {

// From here on an output is not going to be in the cache when the caller reads it.
constexpr size_t kStreamBytes = size_t{16} << 20;
// Least bytes of a block that are worth the system calls of reading it in place.
constexpr size_t kReadBytes = size_t{32} << 10;

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
      n_(static_cast<int>(args.board->ranks().size())),
      me_(args.board->index()),
      block_bytes_(args.operation->count * size_of(args.operation->type)),
      block_per_peer_(args.operation->collective == Collective::kScatter ||
                      args.operation->collective == Collective::kAllToAll),
      staging_(Staging::fit(args.board->part_bytes(), n_, window)),
      slice_bytes_(staging_.window / (block_per_peer_ ? static_cast<size_t>(n_) : 1)),
      relaid_(args.state->lay_out(staging_.window)),
      first_(args.state->windows),
      windows_((block_bytes_ + slice_bytes_ - 1) / slice_bytes_),
      in_(static_cast<const std::byte*>(args.operation->in)),
      out_(static_cast<std::byte*>(args.operation->out)),
      peers_(static_cast<size_t>(n_)) {
  const bool many_blocks = args.operation->collective == Collective::kAllGather ||
                           args.operation->collective == Collective::kGather ||
                           args.operation->collective == Collective::kAllToAll;
  stream_ = block_bytes_ * (many_blocks ? static_cast<size_t>(n_) : 1) >= kStreamBytes;
  args_.state->windows += windows_;
  for (int i = 0; i < n_; ++i) peers_[static_cast<size_t>(i)].part = args_.board->part(i);
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

// Says what this operation is and whether peers may use the input in place.
void WindowedCopy::announce() {
  Board& board = *args_.board;
  const size_t blocks = block_per_peer_ ? static_cast<size_t>(n_) : 1;
  Access access = Access::kNone;
  SegmentRef place;
  if (offers(me_)) {
    if (board.segments_mappable()) {
      const auto found = find_segment(in_, blocks * block_bytes_);
      if (found && board.share_segment(found->segment)) {
        access = Access::kSegment;
        place = *found;
      }
    }
    // Where one rank has it all or takes it all, staging is half of the work, done by others
    // meanwhile.
    const bool everyone = args_.operation->collective == Collective::kAllGather ||
                          args_.operation->collective == Collective::kAllToAll;
    if (access == Access::kNone && everyone && board.memory_readable() &&
        block_bytes_ >= kReadBytes) {
      access = Access::kAddress;
      place.offset = reinterpret_cast<uintptr_t>(in_);
    }
  }
  in_place_ = access != Access::kNone;
  mine().in.set(first_, access, place);
  board.publish(args_.signature);
  announced_ = true;
}

// Once all peers have begun: compares what they are doing and maps what they offer. A peer that is
// in a later operation by now has compared this one itself.
Status WindowedCopy::meet_peers() {
  Board& board = *args_.board;
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    Peer& peer = peers_[static_cast<size_t>(i)];
    const Signature theirs = board.published(i);
    if (theirs.op <= args_.signature.op && !(theirs == args_.signature))
      return mismatch(board.ranks()[static_cast<size_t>(me_)], args_.signature, block_bytes_,
                      board.ranks()[static_cast<size_t>(i)], theirs, block_bytes_);
    const BufferNote& note = board_control(peer.part).in;
    if (!offers(i) || !takes_from(i)) continue;
    peer.access = note.access(first_);
    if (peer.access == Access::kAddress) {
      peer.address = note.offset;
    } else if (peer.access == Access::kSegment) {
      const size_t blocks = block_per_peer_ ? static_cast<size_t>(n_) : 1;
      COMM_ASSIGN(peer.in, board.map_segment(i, note.segment, note.offset, blocks * block_bytes_));
    }
  }
  met_ = true;
  return Status::ok();
}

void WindowedCopy::stage() {
  const Slice part = slice(staged_);
  if (offers(me_) && !in_place_) {
    std::byte* to = staging_.input(peers_[static_cast<size_t>(me_)].part, first_ + staged_);
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
  mine().staged.store(first_ + staged_, std::memory_order_release);
  args_.board->wake_others(args_.share_cores);
}

Status WindowedCopy::take_from(int index, const Slice& part) {
  const size_t source = static_cast<size_t>(index);
  // Where the block is among those that the source offers, and among those that this rank collects.
  const size_t block = block_per_peer_ ? static_cast<size_t>(me_) : 0;
  const Collective collective = args_.operation->collective;
  const bool collects = collective != Collective::kBroadcast && collective != Collective::kScatter;
  std::byte* to = out_ + (collects ? source * block_bytes_ : 0) + part.begin;
  const Peer& peer = peers_[source];
  const size_t in_whole = block * block_bytes_ + part.begin;
  if (peer.access == Access::kAddress)
    return args_.board->read_memory(index, to, peer.address + in_whole, part.bytes);
  const std::byte* whole = index == me_ ? in_ : peer.in;
  const std::byte* from = whole != nullptr
                              ? whole + in_whole
                              : staging_.input(peer.part, first_ + taken_) + block * slice_bytes_;
  if (from != to) copy_bytes(to, from, part.bytes, stream_);
  return Status::ok();
}

Status WindowedCopy::take() {
  const Slice part = slice(taken_);
  // Begin after this rank, so that not all ranks read the same memory at once.
  for (int k = 1; k <= n_; ++k) {
    const int i = (me_ + k) % n_;
    if (takes_from(i)) COMM_TRY(take_from(i, part));
  }
  ++taken_;
  // Both: the windows of other operations count on either.
  mine().reduced.store(first_ + taken_, std::memory_order_release);
  mine().gathered.store(first_ + taken_, std::memory_order_release);
  args_.board->wake_others(args_.share_cores);
  return Status::ok();
}

bool WindowedCopy::reached(std::atomic<uint64_t> BoardControl::*counter, uint64_t Peer::*seen,
                           uint64_t value) {
  for (int i = 0; i < n_; ++i) {
    Peer& peer = peers_[static_cast<size_t>(i)];
    if (i == me_ || peer.*seen >= value) continue;
    peer.*seen = (board_control(peer.part).*counter).load(std::memory_order_acquire);
    if (peer.*seen < value) return false;
  }
  return true;
}

bool WindowedCopy::can_stage() {
  const uint64_t number = first_ + staged_;
  if (staged_ == 0 && relaid_ && !reached(&BoardControl::gathered, &Peer::gathered, first_))
    return false;
  return staged_ < windows_ &&
         (number < kWindowBuffers ||
          reached(&BoardControl::reduced, &Peer::reduced, number - kWindowBuffers + 1));
}

bool WindowedCopy::can_take() {
  return taken_ < staged_ && reached(&BoardControl::staged, &Peer::staged, first_ + taken_ + 1);
}

// Whose counters are short of what the next stage() or take(), or the end, needs.
void WindowedCopy::awaited_peers(std::vector<int>* peers) const {
  uint64_t staged = 0, reduced = 0, gathered = 0;
  if (staged_ < windows_) {
    const uint64_t number = first_ + staged_;
    if (number >= kWindowBuffers) reduced = number - kWindowBuffers + 1;
    if (staged_ == 0 && relaid_) gathered = first_;
  }
  if (taken_ < staged_) staged = first_ + taken_ + 1;
  if (taken_ == windows_) reduced = first_ + windows_;
  for (int i = 0; i < n_; ++i) {
    if (i == me_) continue;
    const BoardControl& control = board_control(peers_[static_cast<size_t>(i)].part);
    if (control.staged.load(std::memory_order_acquire) < staged ||
        control.reduced.load(std::memory_order_acquire) < reduced ||
        control.gathered.load(std::memory_order_acquire) < gathered)
      peers->push_back(args_.board->ranks()[static_cast<size_t>(i)]);
  }
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
  } else if (taken_ < windows_ ||
             (in_place_ && !reached(&BoardControl::reduced, &Peer::reduced, first_ + windows_))) {
    *progress = Progress::kStuck;
    return Status::ok();
  }
  const bool done =
      taken_ == windows_ &&
      (!in_place_ || reached(&BoardControl::reduced, &Peer::reduced, first_ + windows_));
  if (done) *progress = Progress::kDone;
  return Status::ok();
}

}  // namespace libcomm
