#include "src/bootstrap/tree.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "src/bootstrap/news.h"
#include "src/bootstrap/socket.h"

namespace libcomm {
namespace {

constexpr uint32_t kFrameMagic = 0x65724d43;  // "CMre"

void append_block(std::string* out, int rank, const std::string& block) {
  BlockWire wire{};
  wire.rank = static_cast<uint32_t>(rank);
  wire.bytes = block.size();
  out->append(reinterpret_cast<const char*>(&wire), sizeof wire);
  out->append(block);
}

// Stores the blocks of `payload`; false when it is malformed or a rank comes twice.
bool take_blocks(const std::string& payload, uint64_t block_bytes, std::vector<std::string>* blocks,
                 std::vector<bool>* have) {
  size_t at = 0;
  while (at < payload.size()) {
    BlockWire wire;
    if (payload.size() - at < sizeof wire) return false;
    std::memcpy(&wire, payload.data() + at, sizeof wire);
    at += sizeof wire;
    if (wire.rank >= blocks->size() || (*have)[wire.rank]) return false;
    if (wire.bytes > payload.size() - at || wire.bytes > kMaxBlockBytes) return false;
    if (block_bytes != 0 && wire.bytes != block_bytes) return false;
    (*blocks)[wire.rank].assign(payload, at, wire.bytes);
    (*have)[wire.rank] = true;
    at += wire.bytes;
  }
  return true;
}

// What a rank is doing when it makes such an exchange, for the user.
std::string exchange_name(uint32_t kind, uint64_t block_bytes) {
  if (kind == static_cast<uint32_t>(ExchangeKind::kSplit)) return "commSplit";
  if (kind == static_cast<uint32_t>(ExchangeKind::kWindow)) return "commWindowRegister";
  return fmt::format("an exchange of kind {} with {} bytes", kind, block_bytes);
}

constexpr uint64_t kMaxNewsBytes = sizeof(NewsWire) + kMaxNewsText;

// Why a wait for `rank` ended that neither brought anything nor ran out of time.
Status interrupted(Waited waited, int rank) {
  if (waited == Waited::kCancelled) return error(Code::kInvalidUsage, "cancelled").with_peer(rank);
  return error(Code::kRemote, "the group has failed");
}

}  // namespace

Tree::Tree(int rank, int nranks, TreeEdge parent, std::vector<TreeEdge> children)
    : rank_(rank), nranks_(nranks), parent_(std::move(parent)), children_(std::move(children)) {}

void Tree::close() {
  parent_.fd.reset();
  children_.clear();
}

struct Tree::Incoming {
  FrameWire frame{};
  size_t header = 0;
  std::string payload;
  bool done = false;
};

Status Tree::not_come(const std::vector<int>& ranks) const {
  constexpr const char* kRemedy =
      "look where it is, or raise COMM_BOOTSTRAP_TIMEOUT if it is only slow";
  if (parent_.fd && ranks.front() == parent_.rank)
    return error(
               Code::kSystem,
               "rank {} did not answer in a set-up exchange before COMM_BOOTSTRAP_TIMEOUT: it, or "
               "a rank that it waits for, did not come; {}",
               parent_.rank, kRemedy)
        .with_peer(parent_.rank);
  if (ranks.size() == 1)
    return error(Code::kSystem,
                 "rank {} did not come to a set-up exchange before COMM_BOOTSTRAP_TIMEOUT; {}",
                 ranks.front(), kRemedy)
        .with_peer(ranks.front());
  return error(Code::kSystem,
               "ranks {} and {} did not come to a set-up exchange before COMM_BOOTSTRAP_TIMEOUT; "
               "look where they are, or raise COMM_BOOTSTRAP_TIMEOUT if they are only slow",
               ranks.front(), ranks.back());
}

Status Tree::send(TreeEdge& to, const std::string& message, const WaitLimits& limits) {
  to.half_sent = true;
  size_t done = 0;
  while (done < message.size()) {
    size_t count = 0;
    const Moved moved =
        write_some(to.fd.get(), message.data() + done, message.size() - done, &count);
    if (moved == Moved::kClosed)
      return error(Code::kRemote, "rank {} closed its connection during a set-up exchange", to.rank)
          .with_peer(to.rank);
    done += count;
    if (moved == Moved::kSome) continue;
    pollfd fds[2] = {{to.fd.get(), POLLOUT, 0}, {}};
    const Waited waited = wait_ready(fds, limits, Deadline());
    if (waited == Waited::kTimeout) return not_come({to.rank});
    if (waited != Waited::kReady) return interrupted(waited, to.rank);
  }
  to.half_sent = false;
  return Status::ok();
}

Status Tree::check_frame(const TreeEdge& edge, const FrameWire& got,
                         const FrameWire& expected) const {
  const uint64_t most = static_cast<uint64_t>(nranks_) * (kMaxBlockBytes + sizeof(BlockWire));
  const bool gave_up = got.kind == static_cast<uint32_t>(ExchangeKind::kGaveUp);
  if (got.magic != kFrameMagic || got.bytes > (gave_up ? kMaxNewsBytes : most))
    return error(Code::kInternal, "rank {} sent a malformed set-up message", edge.rank)
        .with_peer(edge.rank);
  if (gave_up) return Status::ok();
  if (got.kind != expected.kind || got.sequence != expected.sequence ||
      got.block_bytes != expected.block_bytes)
    return error(
               Code::kInvalidUsage,
               "rank {} calls {} (set-up exchange {}), but rank {} calls {} (set-up exchange {}): "
               "all ranks must make the same calls in the same order",
               edge.rank, exchange_name(got.kind, got.block_bytes), got.sequence, rank_,
               exchange_name(expected.kind, expected.block_bytes), expected.sequence)
        .with_peer(edge.rank);
  return Status::ok();
}

Status Tree::take(const TreeEdge& edge, const FrameWire& expected, Incoming* in) {
  char piece[8 << 10];
  // Never more than this frame: what follows belongs to the next exchange.
  const bool in_header = in->header < sizeof(FrameWire);
  const uint64_t wanted =
      in_header ? sizeof(FrameWire) - in->header : in->frame.bytes - in->payload.size();
  size_t count = 0;
  const Moved moved =
      read_some(edge.fd.get(), piece, std::min<uint64_t>(wanted, sizeof piece), &count);
  if (moved == Moved::kNothing) return Status::ok();
  if (moved == Moved::kClosed)
    return error(Code::kRemote, "rank {} closed its connection during a set-up exchange", edge.rank)
        .with_peer(edge.rank);
  if (in_header) {
    std::memcpy(reinterpret_cast<char*>(&in->frame) + in->header, piece, count);
    in->header += count;
    if (in->header < sizeof(FrameWire)) return Status::ok();
    COMM_TRY(check_frame(edge, in->frame, expected));
  } else {
    in->payload.append(piece, count);
  }
  in->done = in->payload.size() == in->frame.bytes;
  if (!in->done || in->frame.kind != static_cast<uint32_t>(ExchangeKind::kGaveUp))
    return Status::ok();
  const ParsedNews news = parse_news(in->payload, nranks_);
  if (news.state == ParsedNews::kMessage && !news.reason) return news.reason;
  return error(Code::kInternal, "rank {} sent a malformed set-up message", edge.rank)
      .with_peer(edge.rank);
}

Result<std::vector<std::string>> Tree::receive(const std::vector<const TreeEdge*>& from,
                                               const FrameWire& expected, const WaitLimits& limits,
                                               const Deadline& until) {
  std::vector<Incoming> incoming(from.size());
  for (;;) {
    std::vector<pollfd> fds;
    std::vector<int> awaited;
    for (size_t i = 0; i < from.size(); ++i) {
      fds.push_back({incoming[i].done ? -1 : from[i]->fd.get(), POLLIN, 0});
      if (!incoming[i].done) awaited.push_back(from[i]->rank);
    }
    if (awaited.empty()) break;
    fds.push_back({});
    const Waited waited = wait_ready(fds, limits, until);
    if (waited == Waited::kTimeout) return not_come(awaited);
    // What came before the alarm may tell more.
    fds.back().fd = -1;
    if (waited == Waited::kCancelled ||
        (waited == Waited::kAlarm && ::poll(fds.data(), fds.size(), 0) <= 0))
      return interrupted(waited, awaited.front());
    for (size_t i = 0; i < from.size(); ++i)
      if (fds[i].revents != 0) COMM_TRY(take(*from[i], expected, &incoming[i]));
  }
  std::vector<std::string> payloads;
  for (Incoming& in : incoming) payloads.push_back(std::move(in.payload));
  return payloads;
}

// Of the time that is left the last fifth is for the word of those who have given up to go round:
// the ranks end their waits for children one level after the other, from the deepest up.
Deadline Tree::patience_with_children(const WaitLimits& limits) const {
  const double left = 1e-3 * limits.deadline.poll_ms(std::numeric_limits<int>::max());
  const auto level = [](int rank) { return std::bit_width(static_cast<unsigned>(rank) + 1); };
  return limits.deadline.later_by(Seconds(-0.2 * left * level(rank_) / (level(nranks_) + 1)));
}

// Best effort: a neighbour that is not told finds the connection closed.
void Tree::give_up(const Status& reason) {
  const std::string payload = encode_news(NewsType::kAbort, reason);
  FrameWire frame{};
  frame.magic = kFrameMagic;
  frame.kind = static_cast<uint32_t>(ExchangeKind::kGaveUp);
  frame.sequence = sequence_;
  frame.bytes = payload.size();
  const std::string message =
      std::string(reinterpret_cast<const char*>(&frame), sizeof frame) + payload;
  const auto tell = [&message](TreeEdge& edge) {
    size_t count = 0;
    if (edge.fd && !edge.half_sent)
      (void)write_some(edge.fd.get(), message.data(), message.size(), &count);
  };
  tell(parent_);
  for (TreeEdge& child : children_) tell(child);
}

Result<std::vector<std::string>> Tree::exchange(ExchangeKind kind, uint64_t block_bytes,
                                                const std::string& mine, const WaitLimits& limits) {
  FrameWire frame{};
  frame.magic = kFrameMagic;
  frame.kind = static_cast<uint32_t>(kind);
  frame.sequence = ++sequence_;
  frame.block_bytes = block_bytes;
  auto blocks = try_exchange(frame, mine, limits);
  // What a neighbour's end, an alarm or a cancellation means, others learn by the overlay.
  if (!blocks && blocks.status().code() != Code::kRemote && !limits.cancelled())
    give_up(blocks.status());
  return blocks;
}

Result<std::vector<std::string>> Tree::try_exchange(FrameWire frame, const std::string& mine,
                                                    const WaitLimits& limits) {
  const auto framed = [&frame](const std::string& payload) {
    frame.bytes = payload.size();
    return std::string(reinterpret_cast<const char*>(&frame), sizeof frame) + payload;
  };

  std::vector<const TreeEdge*> children;
  for (const TreeEdge& child : children_) children.push_back(&child);
  COMM_ASSIGN(const std::vector<std::string> from_children,
              receive(children, frame, limits, patience_with_children(limits)));
  std::string payload;
  append_block(&payload, rank_, mine);
  for (const std::string& subtree : from_children) payload += subtree;

  std::vector<std::string> blocks(static_cast<size_t>(nranks_));
  std::vector<bool> have(static_cast<size_t>(nranks_), false);
  int parent = rank_;
  if (parent_.fd) {
    parent = parent_.rank;
    COMM_TRY(send(parent_, framed(payload), limits));
    COMM_ASSIGN(std::vector<std::string> from_parent,
                receive({&parent_}, frame, limits, limits.deadline));
    payload = std::move(from_parent.front());
  }
  const std::string down = framed(payload);
  for (TreeEdge& child : children_) COMM_TRY(send(child, down, limits));
  if (!take_blocks(payload, frame.block_bytes, &blocks, &have) ||
      std::find(have.begin(), have.end(), false) != have.end())
    return error(Code::kInternal,
                 "the set-up message from rank {} does not hold one block of every rank", parent)
        .with_peer(parent);
  return blocks;
}

}  // namespace libcomm
