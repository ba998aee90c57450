#include "src/execute/oneshot.h"

#include <algorithm>
#include <array>
#include <bit>
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
  call.kind = hash_of(call.signature);
  call.collective = operation.collective;
  const bool rooted = operation.collective == Collective::kBroadcast ||
                      operation.collective == Collective::kScatter;
  call.root = operation.root;
  call.count = operation.count;
  call.block_bytes = operation.count * size_of(operation.type);
  call.bytes = oneshot_bytes(operation, nranks);
  const bool to_root =
      operation.collective == Collective::kReduce || operation.collective == Collective::kGather;
  call.root_alone = rooted;
  call.awaits_all = to_root ? rank == operation.root : !rooted;
  call.awaits_root = rooted && rank != operation.root;
  call.publishes = call.bytes > 0 && (!rooted || rank == operation.root);
  call.lines = OneshotSlot::lines_for(call.bytes);
  call.bulk_writers = rooted ? 1 : static_cast<size_t>(nranks);
  call.kernel = kernel;
  call.divisor = operation.average ? nranks : 1;
  return call;
}

namespace {

using Words = std::array<uint64_t, sizeof(Signature) / sizeof(uint64_t)>;

uint64_t flag_of(uint64_t calls, uint64_t exchange) {
  // The low half is the exchange's number, never 0, so that a fresh slot matches nothing.
  return (calls & ~uint64_t{0xffffffff}) | (exchange % 0xffffffffu + 1);
}

void sign(OneshotSlot& slot, const Signature& signature) {
  const auto words = std::bit_cast<Words>(signature);
  for (size_t i = 0; i < words.size(); ++i)
    slot.signature[i].store(words[i], std::memory_order_relaxed);
}

Signature signed_in(const OneshotSlot& slot) {
  Words words;
  for (size_t i = 0; i < words.size(); ++i)
    words[i] = slot.signature[i].load(std::memory_order_relaxed);
  return std::bit_cast<Signature>(words);
}

// Rank `index` has come to `exchange` by other calls: names the first that differs, as far as the
// slots still tell.
Status went_elsewhere(const BoardView& view, int index, uint64_t exchange) {
  const auto rank = [&](int i) { return view.board->ranks()[static_cast<size_t>(i)]; };
  uint64_t n = exchange >= kOneshotSlots ? exchange - kOneshotSlots + 1 : 1;
  for (; n < exchange; ++n) {
    const Signature mine = signed_in(oneshot_slot(view.parts[view.me], n));
    const Signature theirs = signed_in(oneshot_slot(view.parts[index], n));
    if (!(mine == theirs)) break;
  }
  return mismatch(rank(view.me), signed_in(oneshot_slot(view.parts[view.me], n)), 0, rank(index),
                  signed_in(oneshot_slot(view.parts[index], n)), 0);
}

}  // namespace

Oneshot::Oneshot(const BoardView& view, const OneshotCall& call, uint64_t number, const void* in,
                 void* out)
    : view_(view),
      call_(call),
      number_(number),
      exchange_(++view.state->oneshots),
      flag_(flag_of(view.state->calls = (view.state->calls ^ call.kind) * 0x9e3779b97f4a7c15u,
                    exchange_)),
      bulk_(call.bytes > OneshotSlot::kSmallBytes
                ? view.state->bulks.next(exchange_, call.bytes, call.bulk_writers)
                : BulkPlaces::Place{}),
      in_(static_cast<const std::byte*>(in)),
      out_(static_cast<std::byte*>(out)) {}

// The slot's last user is `kOneshotSlots` exchanges back.
bool Oneshot::may_publish() {
  const uint64_t back = kOneshotSlots;
  const uint64_t needed =
      std::max(call_.publishes ? bulk_.after : 0, exchange_ <= back ? 0 : exchange_ - back);
  if (needed == 0) return true;
  std::vector<uint64_t>& exchanged = view_.state->exchanged;
  for (; next_peer_ < view_.n; ++next_peer_) {
    uint64_t& theirs = exchanged[static_cast<size_t>(next_peer_)];
    if (next_peer_ == view_.me || theirs >= needed) continue;
    theirs = board_control(view_.parts[next_peer_]).exchanged.load(std::memory_order_acquire);
    if (theirs < needed) return false;
  }
  next_peer_ = 0;
  return true;
}

void Oneshot::publish() {
  Signature signature = call_.signature;
  signature.op = number_;
  // Before the flags: who sees a wrong one wants to know of what.
  view_.board->publish(signature);
  OneshotSlot& slot = slot_of(view_.me);
  sign(slot, signature);
  if (call_.publishes && call_.lines > 1) {
    for (int i = 0; i < call_.lines; ++i) {
      const size_t at = static_cast<size_t>(i) * OneshotSlot::kLineData;
      OneshotSlot::Line& line = slot.lines[i];
      if (i + 1 < call_.lines)
        std::memcpy(line.data, in_ + at, OneshotSlot::kLineData);  // of a size that is known here
      else
        std::memcpy(line.data, in_ + at, call_.bytes - at);
      line.flag.store(flag_, std::memory_order_release);
    }
  } else {
    if (call_.publishes) {
      std::byte* to =
          call_.bytes <= OneshotSlot::kLineData ? slot.lines[0].data : bulk_of(view_.me);
      // Of blocks for each rank nobody reads this rank's own.
      const size_t skipped = call_.bytes > call_.block_bytes ? call_.block_bytes : 0;
      const size_t before = skipped * static_cast<size_t>(view_.me);
      const size_t after = before + skipped;
      if (skipped > 0 && before > 0) std::memcpy(to, in_, before);
      if (after < call_.bytes) std::memcpy(to + after, in_ + after, call_.bytes - after);
    }
    slot.lines[0].flag.store(flag_, std::memory_order_release);
  }
  view_.board->wake_others(view_.share_cores);
  published_ = true;
}

Oneshot::Peers Oneshot::look_at(int index) {
  const OneshotSlot& slot = slot_of(index);
  for (const int lines = lines_of(index); next_line_ < lines; ++next_line_) {
    const uint64_t flag = slot.lines[next_line_].flag.load(std::memory_order_acquire);
    if (flag == flag_) continue;
    const bool same_exchange = static_cast<uint32_t>(flag) == static_cast<uint32_t>(flag_);
    return same_exchange ? Peers::kElsewhere : Peers::kAwaited;
  }
  next_line_ = 0;
  // It began this exchange after it had ended the one before.
  uint64_t& exchanged = view_.state->exchanged[static_cast<size_t>(index)];
  exchanged = std::max(exchanged, exchange_ - 1);
  return Peers::kHere;
}

Oneshot::Peers Oneshot::look() {
  if (call_.awaits_root) return look_at(next_peer_ = call_.root);
  if (!call_.awaits_all) return Peers::kHere;
  for (; next_peer_ < view_.n; ++next_peer_) {
    if (next_peer_ == view_.me) continue;
    const Peers peers = look_at(next_peer_);
    if (peers != Peers::kHere) return peers;
  }
  return Peers::kHere;
}

// This rank's own stays in the user's buffer.
const std::byte* Oneshot::data_of(int index, std::byte* room) const {
  if (index == view_.me) return in_;
  OneshotSlot& slot = slot_of(index);
  const int lines = lines_of(index);
  if (lines == 1)
    return call_.bytes <= OneshotSlot::kLineData ? slot.lines[0].data : bulk_of(index);
  for (int i = 0; i < lines; ++i)
    std::memcpy(room + static_cast<size_t>(i) * OneshotSlot::kLineData, slot.lines[i].data,
                OneshotSlot::kLineData);
  return room;
}

void Oneshot::take() {
  const size_t block = call_.block_bytes;
  const size_t mine = static_cast<size_t>(view_.me) * block;
  if (call_.root_alone) {
    std::byte room[OneshotSlot::kSmallBytes];
    const size_t offset = call_.collective == Collective::kScatter ? mine : 0;
    copy_unless_same(out_, data_of(call_.root, room) + offset, block);
  } else if (call_.awaits_all && call_.collective != Collective::kBarrier) {
    take_from_all(call_.bytes > block ? mine : 0);
  }
}

// `offset`: of what this rank needs in what every rank has published.
void Oneshot::take_from_all(size_t offset) {
  constexpr size_t kFew = 8;
  const size_t n = static_cast<size_t>(view_.n);
  const bool is_few = n <= kFew;
  std::byte few_rooms[kFew * OneshotSlot::kSmallBytes];
  const void* few[kFew] = {};
  std::vector<std::byte> many_rooms(is_few || call_.lines == 1 ? 0 : n * OneshotSlot::kSmallBytes);
  std::vector<const void*> many(is_few ? 0 : n);
  std::byte* rooms = is_few ? few_rooms : many_rooms.data();
  const void** sources = is_few ? few : many.data();
  for (size_t i = 0; i < n; ++i) {
    std::byte* room = rooms + (call_.lines == 1 ? 0 : i) * OneshotSlot::kSmallBytes;
    sources[i] = data_of(static_cast<int>(i), room) + offset;
  }
  if (call_.kernel == nullptr) {
    const size_t block = call_.block_bytes;
    for (size_t i = 0; i < n; ++i) copy_unless_same(out_ + i * block, sources[i], block);
    return;
  }
  ReduceArgs work;
  work.dst = out_;
  work.sources = sources;
  work.source_count = view_.n;
  work.count = call_.count;
  work.divisor = call_.divisor;
  call_.kernel(work);
}

void Oneshot::end() {
  take();
  board_control(view_.parts[view_.me]).exchanged.store(exchange_, std::memory_order_release);
  view_.state->unverified = !call_.awaits_all;
  // Whoever needs nothing from this rank now may wait for its slot later.
  if (!call_.awaits_all || call_.root_alone) view_.board->wake_others(view_.share_cores);
}

bool Oneshot::finish_within(int looks) {
  for (int i = 0; i < looks; ++i) {
    if (!published_) {
      if (!may_publish()) continue;
      publish();
    }
    const Peers peers = look();
    if (peers == Peers::kHere) {
      end();
      return true;
    }
    if (peers == Peers::kElsewhere) return false;
  }
  return false;
}

Status Oneshot::advance(Progress* progress) {
  *progress = Progress::kStuck;
  if (!published_) {
    if (!may_publish()) return Status::ok();
    publish();
    *progress = Progress::kMoved;
  }
  switch (look()) {
    case Peers::kAwaited:
      return Status::ok();
    case Peers::kElsewhere:
      return went_elsewhere(view_, next_peer_, exchange_);
    case Peers::kHere:
      end();
      *progress = Progress::kDone;
  }
  return Status::ok();
}

Status check_oneshots(const BoardView& view, Progress* progress, int* awaited) {
  const uint64_t exchange = view.state->oneshots;
  const uint64_t mine = flag_of(view.state->calls, exchange);
  *progress = Progress::kStuck;
  for (int i = 0; i < view.n; ++i) {
    const uint64_t flag =
        oneshot_slot(view.parts[i], exchange).lines[0].flag.load(std::memory_order_acquire);
    if (flag == mine) continue;
    if (static_cast<uint32_t>(flag) == static_cast<uint32_t>(mine))
      return went_elsewhere(view, i, exchange);
    *awaited = view.board->ranks()[static_cast<size_t>(i)];
    return Status::ok();
  }
  view.state->unverified = false;
  *progress = Progress::kDone;
  return Status::ok();
}

}  // namespace libcomm
