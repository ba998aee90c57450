#include "src/bootstrap/tree.h"

#include <algorithm>
#include <cstring>

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

}  // namespace

Tree::Tree(int rank, int nranks, TreeEdge parent, std::vector<TreeEdge> children)
    : rank_(rank), nranks_(nranks), parent_(std::move(parent)), children_(std::move(children)) {}

void Tree::close() {
  parent_.fd.reset();
  children_.clear();
}

Status Tree::ended(Waited waited, const TreeEdge& edge) const {
  switch (waited) {
    case Waited::kCancelled:
      return error(Code::kInvalidUsage, "cancelled").with_peer(edge.rank);
    case Waited::kAlarm:
      return error(Code::kRemote, "the group has failed");
    default:
      return error(Code::kSystem,
                   "rank {} did not come to a set-up exchange before COMM_BOOTSTRAP_TIMEOUT",
                   edge.rank)
          .with_peer(edge.rank);
  }
}

Status Tree::send(const TreeEdge& to, const std::string& message, const WaitLimits& limits) {
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
    if (waited != Waited::kReady) return ended(waited, to);
  }
  return Status::ok();
}

Result<std::vector<std::string>> Tree::receive(const std::vector<const TreeEdge*>& from,
                                               const FrameWire& expected,
                                               const WaitLimits& limits) {
  struct Incoming {
    FrameWire frame{};
    size_t header = 0;
    std::string payload;
    bool done = false;
  };
  const uint64_t most = static_cast<uint64_t>(nranks_) * (kMaxBlockBytes + sizeof(BlockWire));
  std::vector<Incoming> incoming(from.size());
  std::vector<char> piece(64 << 10);
  for (size_t left = from.size(); left > 0;) {
    std::vector<pollfd> fds;
    const TreeEdge* waiting_for = nullptr;
    for (size_t i = 0; i < from.size(); ++i) {
      fds.push_back({incoming[i].done ? -1 : from[i]->fd.get(), POLLIN, 0});
      if (!incoming[i].done) waiting_for = from[i];
    }
    fds.push_back({});
    const Waited waited = wait_ready(fds, limits, Deadline());
    if (waited != Waited::kReady) return ended(waited, *waiting_for);
    for (size_t i = 0; i < from.size(); ++i) {
      if (fds[i].revents == 0) continue;
      Incoming& in = incoming[i];
      const TreeEdge& edge = *from[i];
      // Never more than this frame: what follows belongs to the next exchange.
      const bool in_header = in.header < sizeof(FrameWire);
      const uint64_t wanted =
          in_header ? sizeof(FrameWire) - in.header : in.frame.bytes - in.payload.size();
      size_t count = 0;
      const Moved moved =
          read_some(edge.fd.get(), piece.data(), std::min<uint64_t>(wanted, piece.size()), &count);
      if (moved == Moved::kNothing) continue;
      if (moved == Moved::kClosed)
        return error(Code::kRemote, "rank {} closed its connection during a set-up exchange",
                     edge.rank)
            .with_peer(edge.rank);
      if (in_header) {
        std::memcpy(reinterpret_cast<char*>(&in.frame) + in.header, piece.data(), count);
        in.header += count;
        if (in.header < sizeof(FrameWire)) continue;
        if (in.frame.magic != kFrameMagic || in.frame.bytes > most)
          return error(Code::kInternal, "rank {} sent a malformed set-up message", edge.rank)
              .with_peer(edge.rank);
        if (in.frame.kind != expected.kind || in.frame.sequence != expected.sequence ||
            in.frame.block_bytes != expected.block_bytes)
          return error(Code::kInvalidUsage,
                       "rank {} makes set-up exchange {} of kind {} with {} bytes, rank {} "
                       "exchange {} of "
                       "kind {} with {} bytes: all ranks must make the same calls",
                       edge.rank, in.frame.sequence, in.frame.kind, in.frame.block_bytes, rank_,
                       expected.sequence, expected.kind, expected.block_bytes)
              .with_peer(edge.rank);
      } else {
        in.payload.append(piece.data(), count);
      }
      if (in.payload.size() == in.frame.bytes) {
        in.done = true;
        --left;
      }
    }
  }
  std::vector<std::string> payloads;
  for (Incoming& in : incoming) payloads.push_back(std::move(in.payload));
  return payloads;
}

Result<std::vector<std::string>> Tree::exchange(ExchangeKind kind, uint64_t block_bytes,
                                                const std::string& mine, const WaitLimits& limits) {
  FrameWire frame{};
  frame.magic = kFrameMagic;
  frame.kind = static_cast<uint32_t>(kind);
  frame.sequence = ++sequence_;
  frame.block_bytes = block_bytes;
  const auto framed = [&frame](const std::string& payload) {
    frame.bytes = payload.size();
    return std::string(reinterpret_cast<const char*>(&frame), sizeof frame) + payload;
  };

  std::vector<const TreeEdge*> children;
  for (const TreeEdge& child : children_) children.push_back(&child);
  COMM_ASSIGN(const std::vector<std::string> from_children, receive(children, frame, limits));
  std::string payload;
  append_block(&payload, rank_, mine);
  for (const std::string& subtree : from_children) payload += subtree;

  std::vector<std::string> blocks(static_cast<size_t>(nranks_));
  std::vector<bool> have(static_cast<size_t>(nranks_), false);
  int parent = rank_;
  if (parent_.fd) {
    parent = parent_.rank;
    COMM_TRY(send(parent_, framed(payload), limits));
    COMM_ASSIGN(std::vector<std::string> from_parent, receive({&parent_}, frame, limits));
    payload = std::move(from_parent.front());
  }
  const std::string down = framed(payload);
  for (const TreeEdge& child : children_) COMM_TRY(send(child, down, limits));
  if (!take_blocks(payload, block_bytes, &blocks, &have) ||
      std::find(have.begin(), have.end(), false) != have.end())
    return error(Code::kInternal,
                 "the set-up message from rank {} does not hold one block of every rank", parent)
        .with_peer(parent);
  return blocks;
}

}  // namespace libcomm
