#include "src/execute/oneshot.h"

#include <array>
#include <cstring>
#include <vector>

namespace libcomm {
namespace {

// Mixes everything but the operation's number into 32 bits; two different calls collide with
// probability 2^-32, and then only the message is lost, not the deadline.
uint32_t hash_of(const Signature& signature) {
  uint64_t h = signature.count * 0x9e3779b97f4a7c15u;
  h ^= signature.table_hash + (h >> 29);
  h = (h ^ static_cast<uint32_t>(signature.root)) * 0xbf58476d1ce4e5b9u;
  h ^= static_cast<uint64_t>(signature.collective) << 16 |
       static_cast<uint64_t>(signature.type) << 8 | signature.redop;
  h *= 0x94d049bb133111ebu;
  return static_cast<uint32_t>(h >> 32);
}

void copy_unless_same(void* dst, const void* src, size_t bytes) {
  if (dst != src && bytes > 0) std::memcpy(dst, src, bytes);
}

std::byte* at(const void* base, size_t offset) {
  return static_cast<std::byte*>(const_cast<void*>(base)) + offset;
}

}  // namespace

bool oneshot_knows(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kAllToAll:
    case Collective::kGather:
    case Collective::kScatter:
    case Collective::kBarrier:
      return true;
    default:
      return false;
  }
}

size_t oneshot_bytes(const Operation& operation, int nranks) {
  const size_t block = operation.count * size_of(operation.type);
  switch (operation.collective) {
    case Collective::kReduceScatter:
    case Collective::kAllToAll:
    case Collective::kScatter:
      return block * static_cast<size_t>(nranks);
    case Collective::kBarrier:
      return 0;
    default:
      return block;
  }
}

Oneshot::Oneshot(const BoardArgs& args)
    : args_(args),
      number_(++args_.state->oneshots),
      // The low half is the number, never 0, so that a fresh slot matches nothing.
      flag_(static_cast<uint64_t>(hash_of(args.signature)) << 32 | (number_ % 0xffffffffu + 1)),
      bytes_(oneshot_bytes(*args.operation, static_cast<int>(args.board->ranks().size()))),
      block_bytes_(args.operation->count * size_of(args.operation->type)) {}

void Oneshot::publish() {
  Board& board = *args_.board;
  const int me = board.index();
  const Operation& operation = *args_.operation;
  const bool rooted = operation.collective == Collective::kBroadcast ||
                      operation.collective == Collective::kScatter;
  OneshotSlot& slot = oneshot_slot(board.part(me), number_);
  board.publish(args_.signature);
  if (bytes_ > 0 && (!rooted || board.ranks()[static_cast<size_t>(me)] == operation.root))
    std::memcpy(oneshot_data(slot, bytes_), operation.in, bytes_);
  slot.flag.store(flag_, std::memory_order_release);
  const int n = static_cast<int>(board.ranks().size());
  for (int i = 0; i < n; ++i)
    if (i != me) board.wake(i, args_.share_cores);
  published_ = true;
}

Status Oneshot::find_stuck_peer(bool* all_here) {
  Board& board = *args_.board;
  const int me = board.index();
  const int n = static_cast<int>(board.ranks().size());
  for (; next_peer_ < n; ++next_peer_) {
    if (next_peer_ == me) continue;
    const uint64_t flag =
        oneshot_slot(board.part(next_peer_), number_).flag.load(std::memory_order_acquire);
    if (flag == flag_) continue;
    if (static_cast<uint32_t>(flag) == static_cast<uint32_t>(flag_)) {
      const auto rank = [&](int index) { return board.ranks()[static_cast<size_t>(index)]; };
      return mismatch(rank(me), args_.signature, bytes_, rank(next_peer_),
                      board.published(next_peer_), bytes_);
    }
    *all_here = false;
    return Status::ok();
  }
  *all_here = true;
  return Status::ok();
}

// Where rank `index`'s contribution is: this rank's own stays in the user's buffer.
const std::byte* Oneshot::data_of(int index) const {
  if (index == args_.board->index()) return at(args_.operation->in, 0);
  return oneshot_data(oneshot_slot(args_.board->part(index), number_), bytes_);
}

void Oneshot::reduce_from(size_t offset, void* dst) {
  constexpr size_t kFew = 16;
  const size_t n = args_.board->ranks().size();
  std::array<const void*, kFew> few;
  std::vector<const void*> many(n > kFew ? n : 0);
  const void** sources = n > kFew ? many.data() : few.data();
  for (size_t i = 0; i < n; ++i) sources[i] = data_of(static_cast<int>(i)) + offset;
  ReduceArgs work;
  work.dst = dst;
  work.sources = sources;
  work.source_count = static_cast<int>(n);
  work.count = args_.operation->count;
  work.divisor = args_.operation->average ? static_cast<int>(n) : 1;
  args_.kernel(work);
}

void Oneshot::take() {
  const Operation& operation = *args_.operation;
  const size_t me = static_cast<size_t>(args_.board->index());
  const size_t n = args_.board->ranks().size();
  const size_t root = static_cast<size_t>(operation.root);
  switch (operation.collective) {
    case Collective::kAllReduce:
      reduce_from(0, operation.out);
      break;
    case Collective::kReduce:
      if (me == root) reduce_from(0, operation.out);
      break;
    case Collective::kReduceScatter:
      reduce_from(me * block_bytes_, operation.out);
      break;
    case Collective::kAllGather:
    case Collective::kGather:
      if (operation.collective == Collective::kGather && me != root) break;
      for (size_t i = 0; i < n; ++i)
        copy_unless_same(at(operation.out, i * block_bytes_), data_of(static_cast<int>(i)),
                         block_bytes_);
      break;
    case Collective::kAllToAll:
      for (size_t i = 0; i < n; ++i)
        copy_unless_same(at(operation.out, i * block_bytes_),
                         data_of(static_cast<int>(i)) + me * block_bytes_, block_bytes_);
      break;
    case Collective::kBroadcast:
      copy_unless_same(operation.out, data_of(static_cast<int>(root)), block_bytes_);
      break;
    case Collective::kScatter:
      copy_unless_same(operation.out, data_of(static_cast<int>(root)) + me * block_bytes_,
                       block_bytes_);
      break;
    default:
      break;
  }
}

Status Oneshot::advance(Progress* progress) {
  const bool first = !published_;
  if (first) publish();
  bool all_here = false;
  COMM_TRY(find_stuck_peer(&all_here));
  if (!all_here) {
    *progress = first ? Progress::kMoved : Progress::kStuck;
    return Status::ok();
  }
  take();
  *progress = Progress::kDone;
  return Status::ok();
}

}  // namespace libcomm
