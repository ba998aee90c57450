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

OneshotCall OneshotCall::of(const Operation& operation, ReduceKernel kernel, int rank, int nranks) {
  OneshotCall call;
  call.signature = signature_of(operation, 0);
  call.kind = static_cast<uint64_t>(hash_of(call.signature)) << 32;
  call.collective = operation.collective;
  const bool rooted = operation.collective == Collective::kBroadcast ||
                      operation.collective == Collective::kScatter;
  call.root = operation.root;
  call.count = operation.count;
  call.block_bytes = operation.count * size_of(operation.type);
  call.bytes = oneshot_bytes(operation, nranks);
  call.publishes = call.bytes > 0 && (!rooted || rank == operation.root);
  call.kernel = kernel;
  call.divisor = operation.average ? nranks : 1;
  return call;
}

Oneshot::Oneshot(const BoardView& view, const OneshotCall& call, uint64_t number, const void* in,
                 void* out)
    : view_(view),
      call_(call),
      number_(number),
      exchange_(++view.state->oneshots),
      // The low half is the exchange's number, never 0, so that a fresh slot matches nothing.
      flag_(call.kind | (exchange_ % 0xffffffffu + 1)),
      in_(static_cast<const std::byte*>(in)),
      out_(static_cast<std::byte*>(out)) {}

void Oneshot::publish() {
  Signature signature = call_.signature;
  signature.op = number_;
  OneshotSlot& slot = slot_of(view_.me);
  if (call_.publishes) std::memcpy(oneshot_data(slot, call_.bytes), in_, call_.bytes);
  // Before the flag: who sees a wrong flag wants to know of what.
  view_.board->publish(signature);
  slot.flag.store(flag_, std::memory_order_release);
  view_.board->wake_others(view_.share_cores);
  published_ = true;
}

Oneshot::Peers Oneshot::look() {
  for (; next_peer_ < view_.n; ++next_peer_) {
    if (next_peer_ == view_.me) continue;
    const uint64_t flag = slot_of(next_peer_).flag.load(std::memory_order_acquire);
    if (flag == flag_) continue;
    const bool same_exchange = static_cast<uint32_t>(flag) == static_cast<uint32_t>(flag_);
    return same_exchange ? Peers::kElsewhere : Peers::kAwaited;
  }
  return Peers::kHere;
}

// Where rank `index`'s contribution is: this rank's own stays in the user's buffer.
const std::byte* Oneshot::data_of(int index) const {
  return index == view_.me ? in_ : oneshot_data(slot_of(index), call_.bytes);
}

void Oneshot::reduce_from(size_t offset) {
  constexpr size_t kFew = 16;
  const size_t n = static_cast<size_t>(view_.n);
  std::array<const void*, kFew> few;
  std::vector<const void*> many(n > kFew ? n : 0);
  const void** sources = n > kFew ? many.data() : few.data();
  for (size_t i = 0; i < n; ++i) sources[i] = data_of(static_cast<int>(i)) + offset;
  ReduceArgs work;
  work.dst = out_;
  work.sources = sources;
  work.source_count = view_.n;
  work.count = call_.count;
  work.divisor = call_.divisor;
  call_.kernel(work);
}

void Oneshot::take() {
  const size_t block = call_.block_bytes;
  const size_t me = static_cast<size_t>(view_.me);
  const bool is_root = view_.me == call_.root;
  switch (call_.collective) {
    case Collective::kAllReduce:
      reduce_from(0);
      break;
    case Collective::kReduce:
      if (is_root) reduce_from(0);
      break;
    case Collective::kReduceScatter:
      reduce_from(me * block);
      break;
    case Collective::kAllGather:
    case Collective::kGather:
      if (call_.collective == Collective::kGather && !is_root) break;
      for (int i = 0; i < view_.n; ++i)
        copy_unless_same(out_ + static_cast<size_t>(i) * block, data_of(i), block);
      break;
    case Collective::kAllToAll:
      for (int i = 0; i < view_.n; ++i)
        copy_unless_same(out_ + static_cast<size_t>(i) * block, data_of(i) + me * block, block);
      break;
    case Collective::kBroadcast:
      copy_unless_same(out_, data_of(call_.root), block);
      break;
    case Collective::kScatter:
      copy_unless_same(out_, data_of(call_.root) + me * block, block);
      break;
    default:
      break;
  }
}

bool Oneshot::finish_within(int looks) {
  if (!published_) publish();
  for (int i = 0; i < looks; ++i) {
    const Peers peers = look();
    if (peers == Peers::kHere) {
      take();
      return true;
    }
    if (peers == Peers::kElsewhere) return false;
  }
  return false;
}

Status Oneshot::advance(Progress* progress) {
  *progress = published_ ? Progress::kStuck : Progress::kMoved;
  if (!published_) publish();
  switch (look()) {
    case Peers::kAwaited:
      return Status::ok();
    case Peers::kElsewhere: {
      Board& board = *view_.board;
      const auto rank = [&](int index) { return board.ranks()[static_cast<size_t>(index)]; };
      Signature mine = call_.signature;
      mine.op = number_;
      return mismatch(rank(view_.me), mine, call_.bytes, rank(next_peer_),
                      board.published(next_peer_), call_.bytes);
    }
    case Peers::kHere:
      take();
      *progress = Progress::kDone;
  }
  return Status::ok();
}

}  // namespace libcomm
