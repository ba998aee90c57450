#include "src/execute/p2p.h"

#include <algorithm>
#include <cstring>

#include "src/reduce/reduce.h"

namespace libcomm {

void P2pBatch::add(P2pMessage message) {
  Transfer transfer;
  transfer.bytes = message.operation.count * size_of(message.operation.type);
  transfer.message = std::move(message);
  const int peer = transfer.message.operation.root;
  const bool is_send = transfer.message.operation.is_send;
  if (peer == rank_) {
    (is_send ? self_sends_ : self_recvs_).push_back(std::move(transfer));
  } else if (is_send) {
    sends_[peer].queue.push_back(std::move(transfer));
  } else {
    recvs_[peer].queue.push_back(std::move(transfer));
  }
}

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

void P2pBatch::settle_self() {
  for (size_t i = 0; i < self_sends_.size(); ++i) {
    const Transfer& from = self_sends_[i];
    const Transfer& to = self_recvs_[i];
    if (from.bytes > 0 && from.message.operation.in != to.message.operation.out)
      std::memmove(to.message.operation.out, from.message.operation.in, from.bytes);
  }
  self_sends_.clear();
  self_recvs_.clear();
}

// Gives the channel what it takes of a message. One of no bytes is one empty segment, so that the
// two calls are compared all the same.
Status P2pBatch::give(Transfer& transfer, SendPort& port, bool* moved) {
  const auto* src = static_cast<const std::byte*>(transfer.message.operation.in);
  const bool direct = transfer.bytes > 0 && (port.channel->capabilities() & kDirectSend) != 0;
  do {
    const size_t bytes = std::min(segment_bytes_, transfer.bytes - transfer.done);
    bool went = false;
    if (direct) {
      COMM_TRY(port.channel->post(transfer.message.signature, src + transfer.done, bytes, &went));
    } else {
      std::byte* slot = nullptr;
      COMM_TRY(port.channel->reserve(&slot));
      if (slot != nullptr) {
        if (bytes > 0) copy_bytes(slot, src + transfer.done, bytes, false);
        COMM_TRY(port.channel->commit(transfer.message.signature, bytes));
        went = true;
      }
    }
    if (!went) return Status::ok();
    ++port.accepted;
    transfer.done += bytes;
    *moved = true;
  } while (transfer.done < transfer.bytes);
  transfer.given = true;
  transfer.finish_at = port.accepted;
  return Status::ok();
}

Status P2pBatch::advance_send(int peer, Outgoing& flow, bool* moved) {
  if (flow.port == nullptr) {
    COMM_ASSIGN(flow.port, ports_->send_port(peer, kP2pLane));
  }
  SendPort& port = *flow.port;
  for (Transfer& transfer : flow.queue) {
    if (!transfer.given) COMM_TRY(give(transfer, port, moved));
    if (!transfer.given) break;
  }
  COMM_TRY(port.channel->progress(&port.completed));
  while (!flow.queue.empty() && flow.queue.front().given &&
         port.completed >= flow.queue.front().finish_at) {
    flow.queue.pop_front();
    *moved = true;
  }
  return Status::ok();
}

Status P2pBatch::advance_recv(int peer, Incoming& flow, bool* moved) {
  if (flow.port == nullptr) {
    COMM_ASSIGN(flow.port, ports_->recv_port(peer, kP2pLane));
  }
  while (!flow.queue.empty()) {
    Transfer& transfer = flow.queue.front();
    auto* dst = static_cast<std::byte*>(transfer.message.operation.out);
    const size_t bytes = std::min(segment_bytes_, transfer.bytes - transfer.done);
    bool got = false;
    COMM_TRY(flow.port->channel->receive_into(transfer.message.signature, dst + transfer.done,
                                              bytes, &got));
    if (!got) return Status::ok();
    transfer.done += bytes;
    *moved = true;
    if (transfer.done == transfer.bytes) flow.queue.pop_front();
  }
  return Status::ok();
}

Status P2pBatch::advance(Progress* progress) {
  bool moved = false;
  for (auto it = sends_.begin(); it != sends_.end();) {
    COMM_TRY(advance_send(it->first, it->second, &moved));
    it = it->second.queue.empty() ? sends_.erase(it) : std::next(it);
  }
  for (auto it = recvs_.begin(); it != recvs_.end();) {
    COMM_TRY(advance_recv(it->first, it->second, &moved));
    it = it->second.queue.empty() ? recvs_.erase(it) : std::next(it);
  }
  *progress = sends_.empty() && recvs_.empty() ? Progress::kDone
              : moved                          ? Progress::kMoved
                                               : Progress::kStuck;
  return Status::ok();
}

void P2pBatch::awaited_peers(std::vector<int>* peers) const {
  for (const auto& [peer, flow] : sends_) peers->push_back(peer);
  for (const auto& [peer, flow] : recvs_) peers->push_back(peer);
}

void P2pBatch::wait_handles(std::vector<WaitHandle>* handles) const {
  for (const auto& [peer, flow] : sends_)
    if (flow.port != nullptr) handles->push_back(flow.port->channel->wait_handle());
  for (const auto& [peer, flow] : recvs_)
    if (flow.port != nullptr) handles->push_back(flow.port->channel->wait_handle());
}

}  // namespace libcomm
