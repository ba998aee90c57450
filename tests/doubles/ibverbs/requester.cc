#include "tests/doubles/ibverbs/requester.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/doubles/ibverbs/completion.h"
#include "tests/doubles/ibverbs/faults.h"
#include "tests/doubles/ibverbs/memory.h"
#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/responder.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

constexpr int kEndless = 7;  // rnr_retry

// Milliseconds * 100 by the encoding of min_rnr_timer (InfiniBand specification 9.7.5.2.8).
int64_t not_ready_delay_ns(uint8_t timer) {
  static constexpr int32_t kHundredths[32] = {65536, 1,    2,    3,     4,     6,     8,     12,
                                              16,    24,   32,   48,    64,    96,    128,   192,
                                              256,   384,  512,  768,   1024,  1536,  2048,  3072,
                                              4096,  6144, 8192, 12288, 16384, 24576, 32768, 49152};
  return kHundredths[timer & 31] * int64_t{10'000};
}

int64_t timeout_ns(const Qp& qp) { return int64_t{4096} << qp.attr.timeout; }

// The 64-bit PSN near `reference` whose low 24 bits are `psn`.
uint64_t unwrapped(uint32_t psn, uint64_t reference) {
  const uint32_t distance = (psn - static_cast<uint32_t>(reference)) & kPsnMask;
  return distance < (1u << 23) ? reference + distance : reference - ((1u << 24) - distance);
}

ibv_wc_opcode completion_opcode(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
      return IBV_WC_RDMA_READ;
    default:
      return IBV_WC_SEND;
  }
}

// The oldest request leaves the send queue; with a completion if it is signaled or failed.
void retire(Qp& qp, ibv_wc_status status) {
  const SendRequest request = std::move(qp.sends.front());
  qp.sends.pop_front();
  if (request.is_read() && request.asked) --qp.reads;
  if (status == IBV_WC_SUCCESS && (request.flags & IBV_SEND_SIGNALED) == 0) {
    ++qp.silent_slots;
    --qp.send_queue().outstanding;
    return;
  }
  Completion completion;
  completion.of = &qp;
  completion.send_slots = qp.silent_slots + 1;
  qp.silent_slots = 0;
  completion.wc.wr_id = request.id;
  completion.wc.status = status;
  completion.wc.opcode = completion_opcode(request.opcode);
  completion.wc.qp_num = qp.qp_num;
  if (request.is_read()) completion.wc.byte_len = static_cast<uint32_t>(request.length);
  complete(qp.send_queue(), completion, false);
}

// All before `psn` is done.
void acknowledged(Qp& qp, uint64_t psn) {
  if (psn <= qp.acked_psn) return;
  if (psn > qp.furthest_psn) {  // of what was never sent: worth nothing
    lost(qp, qp.wave);
    return;
  }
  qp.acked_psn = psn;
  qp.sent_psn = std::max(qp.sent_psn, psn);
  qp.retries = 0;
  qp.not_ready_retries = 0;
  while (!qp.sends.empty() && qp.sends.front().end() <= psn) {
    const SendRequest& oldest = qp.sends.front();
    if (oldest.is_read() && oldest.answered < oldest.length) break;
    retire(qp, IBV_WC_SUCCESS);
  }
}

// Everything not acknowledged is sent again after `delay_ns`.
void send_again_later(Qp& qp, int64_t delay_ns) {
  qp.waiting = true;
  const uint32_t wave = ++qp.wave;
  Node& node = *qp.node;
  node.at(now_ns() + delay_ns, [&node, number = qp.qp_num, wave] {
    Qp* again = node.find_queue_pair(number);
    if (again == nullptr || !again->waiting || again->wave != wave) return;
    again->waiting = false;
    again->sent_psn = again->acked_psn;
    for (SendRequest& request : again->sends) {
      if (request.is_read() && request.asked) {
        request.asked = false;
        request.answered = 0;
        --again->reads;
      }
    }
    ++again->counters.retransmissions;
    pump(*again);
  });
}

void read_answered(Qp& qp, Packet& packet) {
  const Header& header = packet.header;
  const uint64_t psn = unwrapped(header.psn, qp.acked_psn);
  if (qp.waiting || header.wave != qp.wave) return;
  for (SendRequest& request : qp.sends) {
    if (!request.is_read() || psn < request.first || psn >= request.end()) continue;
    if (header.offset != request.answered) return;
    uint64_t skip = header.offset;
    uint64_t done = 0;
    for (const ibv_sge& piece : request.pieces) {
      if (skip >= piece.length) {
        skip -= piece.length;
        continue;
      }
      const uint64_t bytes = std::min<uint64_t>(piece.length - skip, header.payload - done);
      std::string why;
      std::byte* to = local_memory(*qp.node, qp.domain(), piece, IBV_ACCESS_LOCAL_WRITE, &why);
      if (to == nullptr) {
        violation(EINVAL, "read of queue pair %u: %s", qp.qp_num, why.c_str());
        acknowledged(qp, request.first);
        fail_oldest(qp, IBV_WC_LOC_PROT_ERR);
        return;
      }
      write_memory(to + skip, packet.payload.get() + done, bytes);
      done += bytes;
      skip = 0;
      if (done == header.payload) break;
    }
    request.answered += header.payload;
    qp.counters.received_bytes += header.payload;
    acknowledged(qp, psn + header.packets);
    return;
  }
}

void not_ready(Qp& qp, const Header& header) {
  if (qp.waiting || header.wave != qp.wave) return;
  acknowledged(qp, unwrapped(header.psn, qp.acked_psn));
  ++qp.counters.not_ready;
  if (qp.attr.rnr_retry != kEndless && qp.not_ready_retries >= qp.attr.rnr_retry) {
    fail_oldest(qp, IBV_WC_RNR_RETRY_EXC_ERR);
    return;
  }
  ++qp.not_ready_retries;
  send_again_later(qp, not_ready_delay_ns(header.timer));
}

// The bytes [offset, offset + bytes) of the request's pieces; false if a key does not allow it.
bool gather(Qp& qp, const SendRequest& request, uint64_t offset, std::byte* to, uint64_t bytes) {
  if (!request.inline_bytes.empty()) {
    std::memcpy(to, request.inline_bytes.data() + offset, bytes);
    return true;
  }
  for (const ibv_sge& piece : request.pieces) {
    if (bytes == 0) return true;
    if (offset >= piece.length) {
      offset -= piece.length;
      continue;
    }
    const uint64_t part = std::min<uint64_t>(bytes, piece.length - offset);
    std::string why;
    const std::byte* from = local_memory(*qp.node, qp.domain(), piece, 0, &why);
    if (from == nullptr) {
      violation(EINVAL, "send request %llu of queue pair %u: %s",
                static_cast<unsigned long long>(request.id), qp.qp_num, why.c_str());
      return false;
    }
    std::memcpy(to, from + offset, part);
    to += part;
    bytes -= part;
    offset = 0;
  }
  return true;
}

// The packet at qp.sent_psn, which lies in `request`. False when the queue pair failed instead.
bool send_packet(Qp& qp, SendRequest& request) {
  const uint32_t mtu = mtu_bytes(qp.attr.path_mtu);
  Packet packet;
  Header& header = packet.header;
  header.kind = Kind::kRequest;
  header.source = qp.qp_num;
  header.destination = qp.attr.dest_qp_num;
  header.wave = qp.wave;
  header.mtu = mtu;
  header.rkey = request.rkey;
  header.length = request.length;
  header.offset = (qp.sent_psn - request.first) * mtu;
  header.psn = static_cast<uint32_t>(qp.sent_psn) & kPsnMask;
  header.destination_gid = qp.attr.ah_attr.grh.dgid;
  if ((request.flags & IBV_SEND_SOLICITED) != 0) header.flags |= kSolicited;
  if (request.is_read()) {
    header.operation = Operation::kRead;
    header.offset = 0;
    header.address = request.remote;
    header.packets = static_cast<uint32_t>(request.packets);
    header.flags |= kLast;
    request.asked = true;
    ++qp.reads;
  } else {
    header.operation = request.is_send() ? Operation::kSend : Operation::kWrite;
    header.address = request.remote + header.offset;
    const uint64_t bytes = std::min<uint64_t>(request.length - header.offset, kMaxPayload);
    header.payload = static_cast<uint32_t>(bytes);
    header.packets = static_cast<uint32_t>(std::max<uint64_t>(1, (bytes + mtu - 1) / mtu));
    if (header.offset + bytes == request.length) header.flags |= kLast;
    if (request.has_immediate()) {
      header.flags |= kImmediate;
      header.immediate = request.immediate;
    }
    if (bytes > 0) {
      packet.payload = std::make_unique_for_overwrite<std::byte[]>(bytes);
      if (!gather(qp, request, header.offset, packet.payload.get(), bytes)) {
        acknowledged(qp, request.first);
        fail_oldest(qp, IBV_WC_LOC_PROT_ERR);
        return false;
      }
    }
    qp.counters.sent_bytes += bytes;
  }
  qp.sent_psn += header.packets;
  qp.furthest_psn = std::max(qp.furthest_psn, qp.sent_psn);
  qp.counters.max_in_flight_packets =
      std::max(qp.counters.max_in_flight_packets, qp.sent_psn - qp.acked_psn);
  if (!qp.device().at(qp.attr.port_num).up || loses(qp, header)) {
    ++qp.device().counters.dropped_packets;
    lost(qp, qp.wave);
    return false;
  }
  qp.node->transmit(std::move(packet));
  return true;
}

bool may_start(const Qp& qp, const SendRequest& request) {
  if ((request.flags & IBV_SEND_FENCE) != 0 && qp.reads > 0) return false;
  if (request.is_read()) return qp.reads < qp.attr.max_rd_atomic;
  return true;
}

}  // namespace

void pump(Qp& qp) {
  const uint64_t window = std::max<uint64_t>(1, config().window / mtu_bytes(qp.attr.path_mtu));
  while (qp.state == IBV_QPS_RTS && !qp.waiting && qp.sent_psn < qp.post_psn &&
         qp.sent_psn - qp.acked_psn < window) {
    const auto next = std::partition_point(
        qp.sends.begin(), qp.sends.end(),
        [&](const SendRequest& request) { return request.end() <= qp.sent_psn; });
    if (next->first == qp.sent_psn) {
      if (!may_start(qp, *next)) return;
      ibv_wc_status status;
      if (fails(qp, *next, &status)) {
        // Those before it end first.
        if (next == qp.sends.begin()) fail_oldest(qp, status);
        return;
      }
    }
    if (!send_packet(qp, *next)) return;
  }
}

void answered(Qp& qp, Packet& packet) {
  if (qp.state != IBV_QPS_RTS && qp.state != IBV_QPS_SQD) return;
  const Header& header = packet.header;
  switch (header.kind) {
    case Kind::kAck:
      acknowledged(qp, unwrapped(header.psn, qp.acked_psn) + 1);
      break;
    case Kind::kReadResponse:
      read_answered(qp, packet);
      break;
    case Kind::kNak:
      if (qp.waiting || header.wave != qp.wave) return;
      acknowledged(qp, unwrapped(header.psn, qp.acked_psn));
      fail_oldest(qp, static_cast<ibv_wc_status>(header.status));
      break;
    case Kind::kNotReady:
      not_ready(qp, header);
      break;
    case Kind::kLost:
      lost(qp, header.wave);
      break;
    default:
      fatal("queue pair %u got a packet of kind %d", qp.qp_num, static_cast<int>(header.kind));
  }
  pump(qp);
}

void lost(Qp& qp, uint32_t wave) {
  if (qp.waiting || wave != qp.wave || qp.sent_psn == qp.acked_psn) return;
  if (qp.attr.timeout == 0) {  // no timer: such a queue pair waits for ever
    qp.waiting = true;
    return;
  }
  qp.waiting = true;
  const uint32_t next = ++qp.wave;
  Node& node = *qp.node;
  if (qp.retries < qp.attr.retry_cnt) {
    ++qp.retries;
    send_again_later(qp, timeout_ns(qp));
    return;
  }
  node.at(now_ns() + timeout_ns(qp), [&node, number = qp.qp_num, next] {
    Qp* failed = node.find_queue_pair(number);
    if (failed != nullptr && failed->waiting && failed->wave == next)
      fail_oldest(*failed, IBV_WC_RETRY_EXC_ERR);
  });
}

void fail_oldest(Qp& qp, ibv_wc_status status) {
  if (!qp.sends.empty()) retire(qp, status);
  enter_error(qp);
}

void enter_error(Qp& qp) {
  qp.state = IBV_QPS_ERR;
  qp.attr.qp_state = IBV_QPS_ERR;
  ++qp.wave;
  qp.waiting = false;
  while (!qp.sends.empty()) retire(qp, IBV_WC_WR_FLUSH_ERR);
  flush_receives(qp);
}

void forget_requests(Qp& qp) {
  qp.send_queue().outstanding -= qp.sends.size();
  qp.receive_queue().outstanding -= qp.receives.size();
  qp.sends.clear();
  qp.receives.clear();
  purge(qp.send_queue(), qp);
  purge(qp.receive_queue(), qp);
  qp.send_slots = qp.silent_slots = qp.receive_slots = 0;
  qp.reads = 0;
  qp.waiting = false;
  ++qp.wave;
}

}  // namespace rdma_double
