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
  } else if (transfer.bytes > 0) {
    if (is_send) {
      sends_[peer].queue.push_back(std::move(transfer));
    } else {
      recvs_[peer].queue.push_back(std::move(transfer));
    }
  }
}

Status P2pBatch::settle_self() {
  if (self_sends_.size() != self_recvs_.size()) {
    return error(Code::kInvalidUsage,
                 "rank {} sends {} and receives {} messages to itself in this group; each send to "
                 "oneself needs its receive in the same commGroupStart/commGroupEnd",
                 rank_, self_sends_.size(), self_recvs_.size());
  }
  for (size_t i = 0; i < self_sends_.size(); ++i) {
    const Transfer& from = self_sends_[i];
    const Transfer& to = self_recvs_[i];
    if (from.bytes != to.bytes)
      return mismatch(rank_, to.message.signature, to.bytes, rank_, from.message.signature,
                      from.bytes);
    if (from.bytes > 0 && from.message.operation.in != to.message.operation.out)
      std::memmove(to.message.operation.out, from.message.operation.in, from.bytes);
  }
  self_sends_.clear();
  self_recvs_.clear();
  return Status::ok();
}

Status P2pBatch::advance_send(int peer, Outgoing& flow, bool* moved) {
  if (flow.port == nullptr) {
    COMM_ASSIGN(flow.port, ports_->send_port(peer, kP2pLane));
  }
  SendPort& port = *flow.port;
  const bool direct = (port.channel->capabilities() & kDirectSend) != 0;
  for (Transfer& transfer : flow.queue) {
    const auto* src = static_cast<const std::byte*>(transfer.message.operation.in);
    while (transfer.done < transfer.bytes) {
      const size_t bytes = std::min(segment_bytes_, transfer.bytes - transfer.done);
      bool went = false;
      if (direct) {
        COMM_TRY(port.channel->post(transfer.message.signature, src + transfer.done, bytes, &went));
      } else {
        std::byte* slot = nullptr;
        COMM_TRY(port.channel->reserve(&slot));
        if (slot != nullptr) {
          copy_bytes(slot, src + transfer.done, bytes, false);
          COMM_TRY(port.channel->commit(transfer.message.signature, bytes));
          went = true;
        }
      }
      if (!went) break;
      ++port.accepted;
      transfer.done += bytes;
      *moved = true;
    }
    if (transfer.done < transfer.bytes) break;
    if (!transfer.given) transfer.finish_at = port.accepted;
    transfer.given = true;
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
