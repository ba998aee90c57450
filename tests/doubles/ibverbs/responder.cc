#include "tests/doubles/ibverbs/responder.h"

#include <algorithm>
#include <cstring>

#include "tests/doubles/ibverbs/completion.h"
#include "tests/doubles/ibverbs/faults.h"
#include "tests/doubles/ibverbs/memory.h"
#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

// The distance of a packet's PSN from the expected one: negative for what came before.
int64_t distance(uint32_t psn, uint64_t expected) {
  const uint32_t ahead = (psn - static_cast<uint32_t>(expected)) & kPsnMask;
  return ahead < (1u << 23) ? static_cast<int64_t>(ahead)
                            : static_cast<int64_t>(ahead) - (int64_t{1} << 24);
}

Packet answer_to(const Header& request, Kind kind) {
  Packet packet;
  packet.header.kind = kind;
  packet.header.source = request.destination;
  packet.header.destination = request.source;
  packet.header.psn = request.psn;
  packet.header.wave = request.wave;
  return packet;
}

void tell(Qp& qp, ibv_event_type type) {
  ibv_async_event event{};
  event.element.qp = &qp;
  event.event_type = type;
  qp.node->event(*qp.owner, event);
}

// The responder refuses: the requester completes with `status`, this queue pair is in the error
// state.
void refuse_request(Qp& qp, const Header& request, ibv_wc_status status, ibv_event_type type) {
  Packet packet = answer_to(request, Kind::kNak);
  packet.header.status = static_cast<uint8_t>(status);
  qp.node->transmit(std::move(packet));
  tell(qp, type);
  enter_error(qp);
}

void complete_receive(Qp& qp, const Header& request, ibv_wc_status status) {
  Completion completion;
  completion.of = &qp;
  completion.receive_slots = 1;
  ibv_wc& wc = completion.wc;
  wc.wr_id = qp.receives.front().id;
  wc.status = status;
  wc.qp_num = qp.qp_num;
  wc.src_qp = request.source;
  const bool write = request.operation == Operation::kWrite;
  wc.opcode = write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
  wc.byte_len = static_cast<uint32_t>(request.length);
  if ((request.flags & kImmediate) != 0) {
    wc.wc_flags = IBV_WC_WITH_IMM;
    wc.imm_data = request.immediate;
  }
  qp.receives.pop_front();
  complete(qp.receive_queue(), completion, (request.flags & kSolicited) != 0);
}

// The posted receive is no good for this message: both sides end.
void fail_receive(Qp& qp, const Header& request, ibv_wc_status here, ibv_wc_status there) {
  Packet packet = answer_to(request, Kind::kNak);
  packet.header.status = static_cast<uint8_t>(there);
  qp.node->transmit(std::move(packet));
  complete_receive(qp, request, here);
  enter_error(qp);
}

bool scatter(Qp& qp, const Packet& packet) {
  uint64_t skip = packet.header.offset;
  uint64_t done = 0;
  for (const ibv_sge& piece : qp.receives.front().pieces) {
    if (done == packet.header.payload) break;
    if (skip >= piece.length) {
      skip -= piece.length;
      continue;
    }
    const uint64_t bytes = std::min<uint64_t>(piece.length - skip, packet.header.payload - done);
    std::string why;
    std::byte* to = local_memory(*qp.node, qp.domain(), piece, IBV_ACCESS_LOCAL_WRITE, &why);
    if (to == nullptr) {
      violation(EINVAL, "receive of queue pair %u: %s", qp.qp_num, why.c_str());
      return false;
    }
    write_memory(to + skip, packet.payload.get() + done, bytes);
    done += bytes;
    skip = 0;
  }
  return true;
}

// True when the packet is executed; false when an answer other than an ack was sent.
bool execute_send(Qp& qp, const Packet& packet) {
  const Header& request = packet.header;
  if (request.length > qp.receives.front().length) {
    fail_receive(qp, request, IBV_WC_LOC_LEN_ERR, IBV_WC_REM_INV_REQ_ERR);
    return false;
  }
  if (!scatter(qp, packet)) {
    fail_receive(qp, request, IBV_WC_LOC_PROT_ERR, IBV_WC_REM_OP_ERR);
    return false;
  }
  if ((request.flags & kLast) != 0) complete_receive(qp, request, IBV_WC_SUCCESS);
  return true;
}

bool execute_write(Qp& qp, const Packet& packet) {
  const Header& request = packet.header;
  if (request.length > 0) {
    // The first packet names the whole message's memory.
    const uint64_t address = request.address - request.offset;
    std::byte* to = remote_memory(*qp.node, qp.domain(), request.rkey, address, request.length,
                                  IBV_ACCESS_REMOTE_WRITE);
    if (to == nullptr) {
      refuse_request(qp, request, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR);
      return false;
    }
    write_remote(*qp.node, request.rkey, to + request.offset, packet.payload.get(),
                 request.payload);
  }
  if ((request.flags & kLast) != 0 && (request.flags & kImmediate) != 0)
    complete_receive(qp, request, IBV_WC_SUCCESS);
  return true;
}

bool execute_read(Qp& qp, const Header& request) {
  const std::byte* from = nullptr;
  if (request.length > 0) {
    from = remote_memory(*qp.node, qp.domain(), request.rkey, request.address, request.length,
                         IBV_ACCESS_REMOTE_READ);
    if (from == nullptr) {
      refuse_request(qp, request, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR);
      return false;
    }
  }
  uint64_t offset = 0;
  do {
    const uint64_t bytes = std::min<uint64_t>(request.length - offset, kMaxPayload);
    Packet packet = answer_to(request, Kind::kReadResponse);
    packet.header.psn = (request.psn + static_cast<uint32_t>(offset / request.mtu)) & kPsnMask;
    packet.header.offset = offset;
    packet.header.payload = static_cast<uint32_t>(bytes);
    packet.header.packets =
        static_cast<uint32_t>(std::max<uint64_t>(1, (bytes + request.mtu - 1) / request.mtu));
    if (bytes > 0) {
      packet.payload = std::make_unique_for_overwrite<std::byte[]>(bytes);
      read_memory(packet.payload.get(), from + offset, bytes);
    }
    qp.node->transmit(std::move(packet));
    offset += bytes;
  } while (offset < request.length);
  return true;
}

bool accepts(const Qp& qp) {
  return qp.state == IBV_QPS_RTR || qp.state == IBV_QPS_RTS || qp.state == IBV_QPS_SQD;
}

bool addressed(Qp& qp, const Header& request) {
  if (request.source != qp.attr.dest_qp_num) return false;
  const ibv_ah_attr& path = qp.attr.ah_attr;
  if (path.is_global == 0) return true;  // InfiniBand within a subnet: by LID
  const ibv_gid& own = qp.device().at(qp.attr.port_num).gids[path.grh.sgid_index].gid;
  return std::memcmp(&own, &request.destination_gid, sizeof(own)) == 0;
}

bool allowed(const Qp& qp, Operation operation) {
  if (operation == Operation::kWrite)
    return (qp.attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE) != 0;
  if (operation == Operation::kRead) return (qp.attr.qp_access_flags & IBV_ACCESS_REMOTE_READ) != 0;
  return true;
}

bool needs_receive(const Header& request) {
  if (request.operation == Operation::kSend) return true;
  return request.operation == Operation::kWrite && (request.flags & kImmediate) != 0 &&
         (request.flags & kLast) != 0;
}

// What was executed before: acknowledged again; a read is answered again.
void repeated(Qp& qp, const Packet& packet, int64_t ahead) {
  const Header& request = packet.header;
  if (qp.expected_psn + static_cast<uint64_t>(ahead) < qp.initial_psn && config().strict)
    fatal(
        "queue pair %u expects PSNs from 0x%llx, queue pair %u begins at 0x%x: hardware would take "
        "that for a repetition and acknowledge it without doing anything",
        qp.qp_num, static_cast<unsigned long long>(qp.initial_psn & kPsnMask), request.source,
        request.psn);
  if (request.operation == Operation::kRead)
    execute_read(qp, request);
  else
    qp.node->owe_ack(qp);
}

void execute(Qp& qp, const Packet& packet) {
  const Header& request = packet.header;
  Device& device = qp.device();
  if (!accepts(qp) || !device.at(qp.attr.port_num).up || !addressed(qp, request)) {
    ++device.counters.dropped_packets;
    tell_lost(*qp.node, request);
    return;
  }
  const int64_t ahead = distance(request.psn, qp.expected_psn);
  if (ahead > 0) {  // something before it was lost
    tell_lost(*qp.node, request);
    return;
  }
  if (!qp.established) {
    qp.established = true;
    if (qp.state == IBV_QPS_RTR) tell(qp, IBV_EVENT_COMM_EST);
  }
  if (ahead < 0) {
    repeated(qp, packet, ahead);
    return;
  }
  const uint32_t mtu = mtu_bytes(qp.attr.path_mtu);
  const bool fits = request.mtu == mtu || (request.packets == 1 && request.payload <= mtu);
  if (!allowed(qp, request.operation) || !fits) {
    refuse_request(qp, request, IBV_WC_REM_INV_REQ_ERR, IBV_EVENT_QP_REQ_ERR);
    return;
  }
  if (needs_receive(request) && qp.receives.empty()) {
    Packet answer = answer_to(request, Kind::kNotReady);
    answer.header.timer = qp.attr.min_rnr_timer;
    qp.node->transmit(std::move(answer));
    return;
  }
  bool done = false;
  switch (request.operation) {
    case Operation::kSend:
      done = execute_send(qp, packet);
      break;
    case Operation::kWrite:
      done = execute_write(qp, packet);
      break;
    case Operation::kRead:
      done = execute_read(qp, request);
      break;
  }
  if (!done) return;
  qp.expected_psn += request.packets;
  qp.counters.received_bytes += request.payload;
  device.counters.received_bytes += request.payload;
  ++device.counters.received_packets;
  if (request.operation != Operation::kRead) qp.node->owe_ack(qp);
}

}  // namespace

void tell_lost(Node& node, const Header& request) {
  node.transmit(answer_to(request, Kind::kLost));
}

void arrived(Node& node, Packet packet) {
  Qp* qp = node.find_queue_pair(packet.header.destination);
  if (qp == nullptr) {
    tell_lost(node, packet.header);
    return;
  }
  const int64_t now = now_ns();
  int64_t due = due_ns(*qp, packet.header, now);
  if (due <= now && qp->underway.empty() && !qp->held) {
    execute(*qp, packet);
    return;
  }
  if (qp->held && qp->hold_reported) tell_lost(node, packet.header);
  if (!qp->underway.empty()) due = std::max(due, qp->underway.back().due_ns);
  DeviceCounters& counters = qp->device().counters;
  counters.backlog_bytes += packet.header.payload;
  counters.max_backlog_bytes = std::max(counters.max_backlog_bytes, counters.backlog_bytes);
  qp->underway.push_back({std::move(packet), due});
  node.at(due, [&node, number = qp->qp_num] {
    if (Qp* later = node.find_queue_pair(number)) deliver_due(*later);
  });
}

void deliver_due(Qp& qp) {
  const int64_t now = now_ns();
  while (!qp.held && !qp.underway.empty() && qp.underway.front().due_ns <= now) {
    const Packet packet = std::move(qp.underway.front().packet);
    qp.underway.pop_front();
    qp.device().counters.backlog_bytes -= packet.header.payload;
    execute(qp, packet);
  }
}

void flush_receives(Qp& qp) {
  while (!qp.receives.empty() && !qp.keeps_receives) {
    Completion completion;
    completion.of = &qp;
    completion.receive_slots = 1;
    completion.wc.wr_id = qp.receives.front().id;
    completion.wc.status = IBV_WC_WR_FLUSH_ERR;
    completion.wc.opcode = IBV_WC_RECV;
    completion.wc.qp_num = qp.qp_num;
    qp.receives.pop_front();
    complete(qp.receive_queue(), completion, false);
  }
}

}  // namespace rdma_double
