#include "src/execute/p2p.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>

#include "src/base/log.h"
#include "src/reduce/reduce.h"

namespace libcomm {
namespace {

// Made of whole words: a processor waits for what it has just stored in parts and reads in one.
Signature signature_of(const MessageCall& call, uint64_t number) {
  constexpr unsigned kCollectiveAt = 8 * offsetof(Signature, collective) % 64;
  constexpr unsigned kTypeAt = 8 * offsetof(Signature, type) % 64;
  const uint64_t last = std::numeric_limits<uint32_t>::max() |  // no root
                        static_cast<uint64_t>(Collective::kSendRecv) << kCollectiveAt |
                        static_cast<uint64_t>(call.type) << kTypeAt;
  const uint64_t hash = call.card_bytes > 0 ? kGpuMeeting : 0;
  return std::bit_cast<Signature>(std::array<uint64_t, 4>{number, call.count, hash, last});
}

size_t bytes_of(const MessageCall& call) {
  return call.card_bytes > 0 ? call.card_bytes : call.count * size_of(call.type);
}

// A look at one channel, in the time of a look at a batch.
constexpr int kLooksPerLook = 2;

}  // namespace

Status check_self_messages(int rank, std::span<const Operation> operations) {
  std::vector<const Operation*> sends, receives;
  for (const Operation& operation : operations)
    if (operation.collective == Collective::kSendRecv && operation.root == rank)
      (operation.is_send ? sends : receives).push_back(&operation);
  if (sends.size() != receives.size()) {
    return error(Code::kInvalidUsage,
                 "rank {} sends {} and receives {} messages to itself in this group; each send to "
                 "oneself needs its receive in the same commGroupStart/commGroupEnd",
                 rank, sends.size(), receives.size());
  }
  for (size_t i = 0; i < sends.size(); ++i) {
    const Signature from = signature_of(*sends[i], 0);
    const Signature to = signature_of(*receives[i], 0);
    if (!(from == to))
      return error(Code::kInvalidUsage,
                   "rank {} sends {} to itself, but receives {} from itself; the two must be equal",
                   rank, describe(from), describe(to));
  }
  return Status::ok();
}

void P2pBatch::start(std::span<const Operation> operations) {
  begin();
  bool to_self = false;
  for (const Operation& operation : operations) {
    if (operation.collective != Collective::kSendRecv) continue;
    to_self = to_self || operation.root == rank_;
    if (operation.root != rank_)
      add({operation.root, operation.is_send, operation.type, operation.count, operation.in,
           operation.out});
  }
  end_adding();
  if (to_self) settle_self(operations);
}

void P2pBatch::start(std::span<const MessageCall> calls) {
  begin();
  for (const MessageCall& call : calls) add(call);
  end_adding();
}

void P2pBatch::begin() {
  if (peers_.empty()) peers_.resize(static_cast<size_t>(nranks_));
  messages_.clear();
  flows_.clear();
}

void P2pBatch::end_adding() {
  for (const Flow& flow : flows_) {
    Peer& peer = peer_of(flow.peer);
    peer.send_flow = peer.recv_flow = kNone;
  }
}

void P2pBatch::add(const MessageCall& call) {
  Peer& peer = peer_of(call.peer);
  int& flow_index = call.is_send ? peer.send_flow : peer.recv_flow;
  const int index = static_cast<int>(messages_.size());
  if (flow_index == kNone) {
    flow_index = static_cast<int>(flows_.size());
    flows_.push_back({call.peer, call.is_send, index, index, index});
  } else {
    Flow& flow = flows_[static_cast<size_t>(flow_index)];
    message(flow.last).next = index;
    flow.last = index;
  }
  Message& added = messages_.emplace_back();
  added.signature = signature_of(call, call.is_send ? ++peer.sent : ++peer.received);
  added.src = static_cast<const std::byte*>(call.src);
  added.dst = static_cast<std::byte*>(call.dst);
  added.bytes = bytes_of(call);
  if (log_wants(LogLevel::kTrace, Subsys::kP2p))
    log_trace(Subsys::kP2p, "rank {}: message {} {} rank {}: {}", rank_, added.signature.op,
              call.is_send ? "to" : "from", call.peer, describe(added.signature));
}

// The n-th send to oneself belongs to the n-th receive.
void P2pBatch::settle_self(std::span<const Operation> operations) {
  const auto next_of = [&](size_t from, bool is_send) {
    while (operations[from].collective != Collective::kSendRecv || operations[from].root != rank_ ||
           operations[from].is_send != is_send)
      ++from;
    return from;
  };
  size_t send = 0, receive = 0;
  for (size_t i = 0; i < operations.size(); ++i) {
    const Operation& operation = operations[i];
    if (operation.collective != Collective::kSendRecv || operation.root != rank_ ||
        !operation.is_send)
      continue;
    send = next_of(send, true);
    receive = next_of(receive, false);
    const void* from = operations[send++].in;
    void* to = operations[receive++].out;
    const size_t bytes = operation.count * size_of(operation.type);
    if (bytes > 0 && from != to) std::memmove(to, from, bytes);
  }
}

Status P2pBatch::open(Flow& flow) {
  Peer& peer = peer_of(flow.peer);
  if (flow.sends) {
    if (peer.send_port == nullptr) {
      COMM_ASSIGN(peer.send_port, ports_->send_port(flow.peer, kP2pLane));
    }
    flow.send_port = peer.send_port;
    return Status::ok();
  }
  if (peer.recv_port == nullptr) {
    COMM_ASSIGN(peer.recv_port, ports_->recv_port(flow.peer, kP2pLane));
  }
  flow.recv_port = peer.recv_port;
  flow.segment = flow.recv_port->channel->receive_bytes();
  return Status::ok();
}

// Gives the channel what it takes of a message. One of no bytes is one empty segment, so that the
// two calls are compared all the same.
Status P2pBatch::give(Message& message, SendPort& port, bool* whole, bool* moved) {
  *whole = false;
  const bool direct =
      message.bytes > 0 && (port.channel->capabilities() & (kDirectSend | kReferences)) != 0;
  const size_t most = port.channel->post_bytes();
  do {
    const std::byte* src = message.src + message.done;
    const size_t bytes = std::min(most, message.bytes - message.done);
    bool went = false;
    if (direct) {
      COMM_TRY(port.channel->post(message.signature, src, bytes, &went));
    } else {
      std::byte* slot = nullptr;
      COMM_TRY(port.channel->reserve(&slot));
      if (slot != nullptr) {
        if (bytes > 0) copy_bytes(slot, src, bytes, false);
        COMM_TRY(port.channel->commit(message.signature, bytes));
        went = true;
      }
    }
    if (!went) return Status::ok();
    ++port.accepted;
    message.done += bytes;
    *moved = true;
  } while (message.done < message.bytes);
  message.finish_at = port.accepted;
  *whole = true;
  return Status::ok();
}

Status P2pBatch::advance_send(Flow& flow, bool* moved) {
  SendPort& port = *flow.send_port;
  while (flow.giving != kNone) {
    bool whole = false;
    COMM_TRY(give(message(flow.giving), port, &whole, moved));
    if (!whole) break;
    flow.giving = message(flow.giving).next;
  }
  COMM_TRY(port.channel->progress(&port.completed));
  while (flow.first != flow.giving && port.completed >= message(flow.first).finish_at) {
    flow.first = message(flow.first).next;
    *moved = true;
  }
  return Status::ok();
}

Status P2pBatch::advance_recv(Flow& flow, bool* moved) {
  RecvChannel& channel = *flow.recv_port->channel;
  while (flow.first != kNone) {
    Message& due = message(flow.first);
    if (!due.expected) channel.expect(due.signature, due.dst, due.bytes, flow.segment);
    due.expected = true;
    const size_t bytes = std::min(flow.segment, due.bytes - due.done);
    bool got = false;
    COMM_TRY(channel.receive_into(due.signature, due.dst + due.done, bytes, &got));
    if (!got) return Status::ok();
    due.done += bytes;
    *moved = true;
    if (due.done == due.bytes) flow.first = due.next;
  }
  return Status::ok();
}

Status P2pBatch::advance(Progress* progress) {
  bool moved = false;
  for (size_t i = 0; i < flows_.size();) {
    Flow& flow = flows_[i];
    if (flow.send_port == nullptr && flow.recv_port == nullptr) COMM_TRY(open(flow));
    COMM_TRY(flow.sends ? advance_send(flow, &moved) : advance_recv(flow, &moved));
    if (flow.first == kNone) {
      flow = flows_.back();
      flows_.pop_back();
    } else {
      ++i;
    }
  }
  *progress = flows_.empty() ? Progress::kDone : moved ? Progress::kMoved : Progress::kStuck;
  return Status::ok();
}

Status P2pBatch::start_within(std::span<const MessageCall> calls, int looks, bool* done) {
  begin();
  COMM_TRY(exchange(&calls, looks));
  for (const MessageCall& call : calls) add(call);
  end_adding();
  Progress progress = flows_.empty() ? Progress::kDone : Progress::kMoved;
  while (progress != Progress::kDone && looks > 0) {
    COMM_TRY(advance(&progress));
    if (progress == Progress::kStuck) --looks;
  }
  *done = progress == Progress::kDone;
  return Status::ok();
}

// The usual group, one message each way at most, through shared memory: what is small is over
// without having been made part of a batch. Leaves in *calls what has not begun.
Status P2pBatch::exchange(std::span<const MessageCall>* calls, int looks) {
  const bool has_two = calls->size() == 2;
  if (calls->size() > 2 || (has_two && calls->front().is_send == calls->back().is_send))
    return Status::ok();
  const size_t send = calls->front().is_send ? 0 : calls->size() - 1;
  bool done = false;
  if ((*calls)[send].is_send) {
    COMM_TRY(send_at_once((*calls)[send], &done));
    if (!done) return Status::ok();
    *calls = has_two ? calls->subspan(1 - send, 1) : std::span<const MessageCall>();
    if (!has_two) return Status::ok();
  }
  COMM_TRY(receive_within(calls->front(), looks, &done));
  if (done) *calls = {};
  return Status::ok();
}

// Gives the message to the channel, if it is one that takes it whole and now.
Status P2pBatch::send_at_once(const MessageCall& call, bool* went) {
  *went = false;
  Peer& peer = peer_of(call.peer);
  SendPort* const port = peer.send_port;
  const size_t bytes = bytes_of(call);
  if (port == nullptr || (~port->channel->capabilities() & (kMapped | kReferences)) != 0 ||
      bytes > port->channel->post_bytes())
    return Status::ok();
  const Signature signature = signature_of(call, peer.sent + 1);
  COMM_TRY(port->channel->post(signature, call.src, bytes, went));
  if (!*went) return Status::ok();
  ++peer.sent;
  ++port->accepted;
  COMM_TRY(port->channel->progress(&port->completed));
  if (port->completed == port->accepted) return Status::ok();
  // The peer reads it where it is.
  const int index = static_cast<int>(messages_.size());
  flows_.push_back({call.peer, true, index, index, kNone, port});
  Message& posted = messages_.emplace_back();
  posted.bytes = posted.done = bytes;
  posted.finish_at = port->accepted;
  return Status::ok();
}

// Looks for the message, if it is one that comes in one piece.
Status P2pBatch::receive_within(const MessageCall& call, int looks, bool* got) {
  *got = false;
  Peer& peer = peer_of(call.peer);
  if (peer.recv_port == nullptr) return Status::ok();
  RecvChannel& channel = *peer.recv_port->channel;
  const size_t bytes = bytes_of(call), segment = channel.receive_bytes();
  if ((channel.capabilities() & kMapped) == 0 || bytes > segment) return Status::ok();
  const Signature signature = signature_of(call, peer.received + 1);
  channel.expect(signature, call.dst, bytes, segment);
  for (looks *= kLooksPerLook; looks > 0 && !*got; --looks)
    COMM_TRY(channel.receive_into(signature, call.dst, bytes, got));
  if (*got) ++peer.received;
  return Status::ok();
}

void P2pBatch::abandon() {
  for (const Flow& flow : flows_) {
    if (flow.send_port != nullptr) flow.send_port->channel->withdraw();
    if (flow.recv_port != nullptr) flow.recv_port->channel->withdraw();
  }
  flows_.clear();
}

void P2pBatch::awaited_peers(std::vector<int>* peers) const {
  for (const Flow& flow : flows_) peers->push_back(flow.peer);
}

void P2pBatch::wait_handles(std::vector<WaitHandle>* handles) const {
  for (const Flow& flow : flows_) {
    if (flow.send_port != nullptr) handles->push_back(flow.send_port->channel->wait_handle());
    if (flow.recv_port != nullptr) handles->push_back(flow.recv_port->channel->wait_handle());
  }
}

}  // namespace libcomm
