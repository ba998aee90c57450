// What ibv_post_send and ibv_post_recv check before a request is taken.
#include <cerrno>
#include <cstring>

#include "tests/doubles/ibverbs/completion.h"
#include "tests/doubles/ibverbs/memory.h"
#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/responder.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

constexpr uint64_t kMaxMessage = uint64_t{1} << 31;
constexpr unsigned kKnownFlags =
    IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE;

bool known(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM ||
         opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_READ;
}

// Keys are looked at when a request is posted only where that is a rule of ours; the hardware looks
// when it uses them.
int check_keys(Qp& qp, const ibv_sge* pieces, int count, unsigned access, const char* what) {
  if (!config().strict) return 0;
  for (int i = 0; i < count; ++i) {
    std::string why;
    if (pieces[i].length > 0 &&
        local_memory(*qp.node, qp.domain(), pieces[i], access, &why) == nullptr)
      fatal("%s on queue pair %u: %s", what, qp.qp_num, why.c_str());
  }
  return 0;
}

uint64_t total(const ibv_sge* pieces, int count) {
  uint64_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += pieces[i].length;
  return bytes;
}

int check_send(Qp& qp, const ibv_send_wr& wr) {
  if (qp.state == IBV_QPS_RESET || qp.state == IBV_QPS_INIT || qp.state == IBV_QPS_RTR)
    return violation(EINVAL, "send request %llu posted on queue pair %u in state %d, before RTS",
                     static_cast<unsigned long long>(wr.wr_id), qp.qp_num, qp.state);
  if (!known(wr.opcode))
    return violation(EINVAL, "send request on queue pair %u with opcode %d, unknown to the double",
                     qp.qp_num, wr.opcode);
  if ((wr.send_flags & ~kKnownFlags) != 0)
    return violation(EINVAL, "send request on queue pair %u with unknown flags 0x%x", qp.qp_num,
                     wr.send_flags & ~kKnownFlags);
  if (wr.num_sge < 0 || static_cast<uint32_t>(wr.num_sge) > qp.cap.max_send_sge)
    return violation(EINVAL, "send request on queue pair %u with %d pieces, it has %u", qp.qp_num,
                     wr.num_sge, qp.cap.max_send_sge);
  const uint64_t length = total(wr.sg_list, wr.num_sge);
  if (length > kMaxMessage)
    return violation(EINVAL, "send request of %llu bytes on queue pair %u",
                     static_cast<unsigned long long>(length), qp.qp_num);
  if (qp.send_slots >= qp.cap.max_send_wr)
    return violation(
        ENOMEM,
        "send queue of queue pair %u overruns its %u requests (%u done without a "
        "completion since the last one; a slot is free when a completion of it or of a "
        "later request was polled)",
        qp.qp_num, qp.cap.max_send_wr, qp.silent_slots);
  const bool read = wr.opcode == IBV_WR_RDMA_READ;
  if ((wr.send_flags & IBV_SEND_INLINE) != 0) {
    if (read) return violation(EINVAL, "inline read on queue pair %u", qp.qp_num);
    if (length > qp.cap.max_inline_data)
      return violation(EINVAL, "%llu inline bytes on queue pair %u, it takes %u",
                       static_cast<unsigned long long>(length), qp.qp_num, qp.cap.max_inline_data);
    return 0;
  }
  if (read && qp.attr.max_rd_atomic == 0)
    return violation(EINVAL, "read on queue pair %u whose max_rd_atomic is 0", qp.qp_num);
  return check_keys(qp, wr.sg_list, wr.num_sge, read ? IBV_ACCESS_LOCAL_WRITE : 0, "send request");
}

SendRequest taken(Qp& qp, const ibv_send_wr& wr) {
  SendRequest request;
  request.id = wr.wr_id;
  request.opcode = wr.opcode;
  request.flags = wr.send_flags;
  if (qp.signal_all) request.flags |= IBV_SEND_SIGNALED;
  request.immediate = wr.imm_data;
  request.remote = wr.wr.rdma.remote_addr;
  request.rkey = wr.wr.rdma.rkey;
  request.length = total(wr.sg_list, wr.num_sge);
  if ((wr.send_flags & IBV_SEND_INLINE) != 0) {
    request.inline_bytes.resize(request.length);
    uint64_t done = 0;
    for (int i = 0; i < wr.num_sge; ++i) {
      std::memcpy(request.inline_bytes.data() + done,
                  reinterpret_cast<const void*>(wr.sg_list[i].addr), wr.sg_list[i].length);
      done += wr.sg_list[i].length;
    }
  } else {
    request.pieces.assign(wr.sg_list, wr.sg_list + wr.num_sge);
  }
  const uint32_t mtu = mtu_bytes(qp.attr.path_mtu);
  request.packets = std::max<uint64_t>(1, (request.length + mtu - 1) / mtu);
  request.first = qp.post_psn;
  request.number = qp.next_number++;
  qp.post_psn = request.end();
  return request;
}

}  // namespace

int post_send(Qp& qp, ibv_send_wr* wr, ibv_send_wr** bad) {
  int result = 0;
  for (; wr != nullptr; wr = wr->next) {
    result = check_send(qp, *wr);
    if (result == 0) result = expect_completion(qp.send_queue(), qp);
    if (result != 0) {
      *bad = wr;
      break;
    }
    qp.sends.push_back(taken(qp, *wr));
    ++qp.send_slots;
    ++qp.counters.posted_sends;
  }
  if (qp.state == IBV_QPS_ERR)
    enter_error(qp);
  else
    pump(qp);
  return result;
}

int post_receive(Qp& qp, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  int result = 0;
  for (; wr != nullptr && result == 0; wr = wr->next) {
    *bad = wr;
    if (qp.state == IBV_QPS_RESET) {
      result = violation(EINVAL, "receive posted on queue pair %u in state RESET", qp.qp_num);
    } else if (wr->num_sge < 0 || static_cast<uint32_t>(wr->num_sge) > qp.cap.max_recv_sge) {
      result = violation(EINVAL, "receive on queue pair %u with %d pieces, it has %u", qp.qp_num,
                         wr->num_sge, qp.cap.max_recv_sge);
    } else if (qp.receive_slots >= qp.cap.max_recv_wr) {
      result = violation(ENOMEM,
                         "receive queue of queue pair %u overruns its %u requests (a slot is free "
                         "when its completion was polled)",
                         qp.qp_num, qp.cap.max_recv_wr);
    } else {
      result = check_keys(qp, wr->sg_list, wr->num_sge, IBV_ACCESS_LOCAL_WRITE, "receive");
      if (result == 0) result = expect_completion(qp.receive_queue(), qp);
    }
    if (result != 0) break;
    ReceiveRequest request;
    request.id = wr->wr_id;
    request.pieces.assign(wr->sg_list, wr->sg_list + wr->num_sge);
    request.length = total(wr->sg_list, wr->num_sge);
    qp.receives.push_back(std::move(request));
    ++qp.receive_slots;
  }
  if (qp.state == IBV_QPS_ERR) flush_receives(qp);
  return result;
}

}  // namespace rdma_double
