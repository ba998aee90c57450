#include "src/execute/oneshot.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "src/base/processor.h"

namespace libcomm {
namespace {

// How many exchanges ahead a rank owns the lines that it is going to write, and how many lines at
// most are fetched ahead for one call: more of them are fetched in a row anyway.
constexpr uint64_t kOwnedAhead = 2;
constexpr int kMostFetched = 8;
// How many slots a rank waits for that has none, and how long between two looks.
constexpr uint64_t kFreedTogether = 8;
constexpr int kPausesHeldUp = 32;
// Above so many ranks, looking at how far each has come costs more than it saves.
constexpr int kMostRanksAhead = 8;

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
  call.to_root = to_root;
  call.awaits_all = to_root ? rank == operation.root : !rooted;
  call.awaits_root = rooted && rank != operation.root;
  call.one_way = rooted || to_root;
  call.publishes = call.bytes > 0 && (!call.one_way || (rank == operation.root) == rooted);
  call.lines = OneshotSlot::lines_for(call.bytes);
  // Blocks for each rank that do not share one line: each finds its own without the others', and
  // nobody looks for this rank's. A root that writes one after the other, and does not wait, is
  // sooner done with one flag for all when they are larger.
  const size_t most = rooted ? OneshotSlot::kSmallBytes : SIZE_MAX;
  if (call.bytes > std::max(call.block_bytes, OneshotSlot::kLineData) && call.bytes <= most) {
    const size_t each = (call.block_bytes + OneshotSlot::kLineData - 1) / OneshotSlot::kLineData;
    call.has_lines_each = each * static_cast<size_t>(nranks - 1) <= OneshotSlot::kLines;
    if (call.has_lines_each) call.lines = static_cast<int>(each);
  }
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
      bulk_(call.bytes > OneshotSlot::kSmallBytes && !call.has_lines_each
                ? view.state->bulks.next(exchange_, call.bytes, call.bulk_writers)
                : BulkPlaces::Place{}),
      in_(static_cast<const std::byte*>(in)),
      out_(static_cast<std::byte*>(out)) {
  // The slot's last user is kOneshotSlots exchanges back.
  if (exchange_ > kOneshotSlots) needed_ = exchange_ - kOneshotSlots;
  if (call_.publishes) needed_ = std::max(needed_, bulk_.after);
}

// A rank that is as far ahead of another as it can be waits until several slots are free again: to
// look whether the next one is takes the line away from the rank that writes it.
bool Oneshot::may_publish() {
  if (needed_ == 0) return true;
  std::vector<uint64_t>& exchanged = view_.state->exchanged;
  for (; next_peer_ < view_.n; ++next_peer_) {
    uint64_t& theirs = exchanged[static_cast<size_t>(next_peer_)];
    if (next_peer_ == view_.me || theirs >= needed_) continue;
    theirs = board_control(view_.parts[next_peer_]).exchanged.load(std::memory_order_acquire);
    if (theirs >= needed_) continue;
    if (!held_up_) needed_ = std::min(needed_ + kFreedTogether, exchange_ - 1);
    held_up_ = true;
    return false;
  }
  next_peer_ = 0;
  return true;
}

// Data and flag of a line arrive together.
void Oneshot::write_lines(OneshotSlot::Line* lines, const std::byte* from, size_t bytes) {
  constexpr size_t kData = OneshotSlot::kLineData;
  const OneshotSlot::Line* second = lines + 1;
  for (; bytes > kData; ++lines, from += kData, bytes -= kData) {
    std::memcpy(lines->data, from, kData);  // of a size that is known here
    lines->flag.store(flag_, std::memory_order_release);
  }
  std::memcpy(lines->data, from, bytes);
  lines->flag.store(flag_, std::memory_order_release);
  if (call_.one_way || view_.share_cores) return;
  for (; second <= lines; ++second) demote(second);  // peers look at the first all the time
}

// Makes the lines of a slot that follows this rank's own while it waits for others anyway. Not when
// a peer may still have to read them.
void Oneshot::own_soon() {
  const uint64_t soon = exchange_ + kOwnedAhead;
  if ((call_.one_way && !call_.publishes) || view_.n > kMostRanksAhead) return;
  for (int i = 0; i < view_.n; ++i) {
    if (i != view_.me && view_.state->exchanged[static_cast<size_t>(i)] + kOneshotSlots < soon)
      return;
  }
  const OneshotSlot& slot = oneshot_slot(view_.parts[view_.me], soon);
  const int lines = std::min(lines_written_by(view_.me), kMostFetched);
  for (int i = 0; i < lines; ++i) prefetch_for_writing(&slot.lines[i]);
}

// What this rank takes was there when it first looked: where data goes one way, that of the next
// call is probably there, too.
void Oneshot::expect_next() {
  if (!call_.one_way || call_.publishes) return;
  for (int i = 0; i < view_.n; ++i) {
    if (i == view_.me || !publishes(i)) continue;
    const OneshotSlot& slot = oneshot_slot(view_.parts[i], exchange_ + 1);
    const int first = first_line(i, view_.me);
    const int lines = std::min(call_.lines, kMostFetched);
    for (int k = first; k < first + lines; ++k) prefetch_for_reading(&slot.lines[k]);
  }
}

void Oneshot::publish() {
  Signature signature = call_.signature;
  signature.op = number_;
  // Before the flags: who sees a wrong one wants to know of what.
  view_.board->publish(signature);
  OneshotSlot& slot = slot_of(view_.me);
  sign(slot, signature);
  if (call_.publishes && call_.has_lines_each) {
    for (int i = 0; i < view_.n; ++i) {
      if (i == view_.me) continue;
      write_lines(slot.lines + first_line(view_.me, i),
                  in_ + static_cast<size_t>(i) * call_.block_bytes, call_.block_bytes);
    }
  } else if (call_.publishes && call_.bytes <= OneshotSlot::kSmallBytes) {
    write_lines(slot.lines, in_, call_.bytes);
  } else {
    if (call_.publishes) {
      std::byte* to = bulk_of(view_.me);
      // Of blocks for each rank nobody reads this rank's own.
      const size_t skipped = call_.bytes > call_.block_bytes ? call_.block_bytes : 0;
      const size_t before = skipped * static_cast<size_t>(view_.me);
      const size_t after = before + skipped;
      if (skipped > 0 && before > 0) std::memcpy(to, in_, before);
      if (after < call_.bytes) std::memcpy(to + after, in_ + after, call_.bytes - after);
      if (call_.tells_reach) slot.lines[0].data[0] = std::byte{is_reachable()};
    }
    slot.lines[0].flag.store(flag_, std::memory_order_release);
  }
  view_.board->wake_others(view_.share_cores);
  own_soon();
  published_ = true;
}

Oneshot::Peers Oneshot::look_at(int index) {
  const OneshotSlot::Line* lines = slot_of(index).lines + first_line(index, view_.me);
  for (const int count = lines_of(index); next_line_ < count; ++next_line_) {
    const uint64_t flag = lines[next_line_].flag.load(std::memory_order_acquire);
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

const std::byte* Oneshot::data_of(int index, std::byte* room) const {
  // Where this rank's block is in what is published whole.
  const size_t offset =
      call_.bytes > call_.block_bytes ? static_cast<size_t>(view_.me) * call_.block_bytes : 0;
  if (index == view_.me) return in_ + offset;  // stays in the user's buffer
  if (!call_.has_lines_each && call_.bytes > OneshotSlot::kSmallBytes)
    return bulk_of(index) + offset;
  const OneshotSlot::Line* lines = slot_of(index).lines + first_line(index, view_.me);
  const size_t in_lines = call_.has_lines_each ? 0 : offset;
  const int count = lines_of(index);
  if (count == 1) return lines->data + in_lines;
  for (int i = 0; i < count; ++i)
    std::memcpy(room + static_cast<size_t>(i) * OneshotSlot::kLineData, lines[i].data,
                OneshotSlot::kLineData);
  return room + in_lines;
}

void Oneshot::take() {
  if (call_.root_alone) {
    std::byte room[OneshotSlot::kSmallBytes];
    copy_unless_same(out_, data_of(call_.root, room), call_.block_bytes);
  } else if (call_.awaits_all && call_.collective != Collective::kBarrier) {
    take_from_all();
  }
}

void Oneshot::take_from_all() {
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
    sources[i] = data_of(static_cast<int>(i), room);
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

// Could the others have used this rank's buffers where they are?
bool Oneshot::is_reachable() const {
  if (view_.one_process) return true;
  const bool in = share_buffer(*view_.board, in_, call_.bytes).has_value();
  return call_.collective == Collective::kAllReduce
             ? in && share_buffer(*view_.board, out_, call_.bytes)
             : in;
}

// As all ranks have told that publish anything.
bool Oneshot::all_reachable() const {
  for (int i = 0; i < view_.n; ++i)
    if (publishes(i) && slot_of(i).lines[0].data[0] == std::byte{0}) return false;
  return true;
}

void Oneshot::end() {
  take();
  if (call_.tells_reach) view_.state->reachable.note(call_.kind, all_reachable());
  board_control(view_.parts[view_.me]).exchanged.store(exchange_, std::memory_order_release);
  view_.state->unverified = !call_.awaits_all;
  // Whoever needs nothing from this rank now may wait for its slot later.
  if (!call_.awaits_all || call_.root_alone) view_.board->wake_others(view_.share_cores);
}

bool Oneshot::finish_within(int looks) {
  for (int i = 0; i < looks; ++i) {
    if (!published_) {
      if (!may_publish()) {
        if (view_.share_cores) return false;  // who frees slots may wait for this very core
        for (int k = 0; k < kPausesHeldUp; ++k) relax();
        continue;
      }
      publish();
    }
    const Peers peers = look();
    if (peers == Peers::kHere) {
      if (i == 0) expect_next();
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

Status check_passed_by(const BoardView& view, const Signature& current) {
  const auto rank = [&](int i) { return view.board->ranks()[static_cast<size_t>(i)]; };
  for (const uint64_t exchange : {view.state->oneshots, view.state->oneshots + 1}) {
    for (int i = 0; i < view.n; ++i) {
      if (i == view.me) continue;
      const OneshotSlot& slot = oneshot_slot(view.parts[i], exchange);
      // Every rank flags line 0 of every exchange, after it has signed.
      const auto& flag = slot.lines[0].flag;
      const uint64_t seen = flag.load(std::memory_order_acquire);
      if (static_cast<uint32_t>(seen) != static_cast<uint32_t>(flag_of(0, exchange))) continue;
      const Signature theirs = signed_in(slot);
      std::atomic_thread_fence(std::memory_order_acquire);
      const bool changed = flag.load(std::memory_order_relaxed) != seen;
      if (!changed && theirs.op == current.op && !(theirs == current))
        return mismatch(rank(view.me), current, 0, rank(i), theirs, 0);
    }
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
