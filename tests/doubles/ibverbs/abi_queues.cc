// The exported calls about completion channels, completion queues and queue pairs.
#include <algorithm>
#include <cerrno>
#include <chrono>

#include "tests/doubles/ibverbs/abi.h"
#include "tests/doubles/ibverbs/completion.h"
#include "tests/doubles/ibverbs/guard.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/responder.h"
#include "tests/doubles/ibverbs/states.h"

using namespace rdma_double;

namespace {

// The real library waits for ever for events that were got and not acknowledged.
constexpr std::chrono::seconds kAcknowledgement{10};

template <typename Object>
void await_acknowledgements(Object& object, std::unique_lock<std::mutex>& lock, const char* call) {
  const bool all = object.node->changed().wait_for(lock, kAcknowledgement,
                                                   [&] { return object.unacked_events == 0; });
  if (!all)
    fatal("%s waits for %llu events that were got and are not acknowledged", call,
          static_cast<unsigned long long>(object.unacked_events));
}

int check_caps(const ibv_qp_init_attr& init) {
  const Config& c = config();
  const ibv_qp_cap& cap = init.cap;
  const auto above = [](uint32_t value, int limit) { return value > static_cast<uint32_t>(limit); };
  if (above(cap.max_send_wr, c.max_qp_wr) || above(cap.max_recv_wr, c.max_qp_wr) ||
      above(cap.max_send_sge, c.max_sge) || above(cap.max_recv_sge, c.max_sge) ||
      cap.max_inline_data > c.max_inline)
    return refuse(EINVAL);
  return 0;
}

}  // namespace

namespace rdma_double {

int poll_cq(ibv_cq* queue, int entries, ibv_wc* out) {
  Cq& cq = *static_cast<Cq*>(queue);
  const auto lock = enter(cq, "completion queue", "ibv_poll_cq");
  if (cq.entries.empty()) cq.node->progress_of_poller();
  return poll(cq, entries, out);
}

int request_notification(ibv_cq* queue, int solicited_only) {
  Cq& cq = *static_cast<Cq*>(queue);
  const auto lock = enter(cq, "completion queue", "ibv_req_notify_cq");
  if (cq.channel == nullptr)
    return violation(EINVAL, "ibv_req_notify_cq on a completion queue without a channel");
  if (solicited_only == 0)
    cq.node->set_armed(cq, Armed::kAny);
  else if (cq.armed == Armed::kNo)
    cq.node->set_armed(cq, Armed::kSolicited);
  return 0;
}

int post_send_call(ibv_qp* pair, ibv_send_wr* request, ibv_send_wr** bad) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_post_send");
  const int code = post_send(qp, request, bad);
  qp.node->drain();
  return code;
}

int post_receive_call(ibv_qp* pair, ibv_recv_wr* request, ibv_recv_wr** bad) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_post_recv");
  return post_receive(qp, request, bad);
}

}  // namespace rdma_double

extern "C" {

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_create_comp_channel");
  Channel& channel = c.node->make<Channel>(&c);
  channel.context = context;
  channel.fd = channel.events.open();
  if (channel.fd < 0) {
    channel.live = false;
    return nullptr;
  }
  ++c.channels;
  return &channel;
}

int ibv_destroy_comp_channel(ibv_comp_channel* given) {
  Channel& channel = *static_cast<Channel*>(given);
  const auto lock = enter(channel, "completion channel", "ibv_destroy_comp_channel");
  if (channel.queues > 0)
    return violation(EBUSY, "a completion channel is destroyed with %d completion queues",
                     channel.queues);
  channel.live = false;
  channel.events.close();
  --channel.owner->channels;
  return 0;
}

ibv_cq* ibv_create_cq(ibv_context* context, int entries, void* cq_context,
                      ibv_comp_channel* channel, int vector) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_create_cq");
  if (entries < 1 || entries > config().max_cqe || vector != 0) {
    refuse(EINVAL);
    return nullptr;
  }
  if (c.on->completion_queues >= config().max_cq) {
    refuse(ENOMEM);
    return nullptr;
  }
  if (channel != nullptr)
    must_live(*static_cast<Channel*>(channel), "completion channel", "ibv_create_cq");
  Cq& cq = c.node->make<Cq>(&c);
  cq.context = context;
  cq.channel = channel;
  cq.cq_context = cq_context;
  cq.cqe = entries;
  if (channel != nullptr) ++static_cast<Channel*>(channel)->queues;
  ++c.queues;
  ++c.on->completion_queues;
  return &cq;
}

int ibv_resize_cq(ibv_cq* queue, int entries) {
  Cq& cq = *static_cast<Cq*>(queue);
  const auto lock = enter(cq, "completion queue", "ibv_resize_cq");
  if (entries < 1 || entries > config().max_cqe || static_cast<size_t>(entries) < cq.entries.size())
    return refuse(EINVAL);
  cq.cqe = entries;
  return 0;
}

int ibv_destroy_cq(ibv_cq* queue) {
  Cq& cq = *static_cast<Cq*>(queue);
  auto lock = enter(cq, "completion queue", "ibv_destroy_cq");
  if (cq.queue_pairs > 0)
    return violation(EBUSY, "a completion queue is destroyed that %d queues of queue pairs use",
                     cq.queue_pairs);
  await_acknowledgements(cq, lock, "ibv_destroy_cq");
  cq.live = false;
  cq.entries.clear();
  cq.node->set_armed(cq, Armed::kNo);
  if (Channel* channel = cq.events_to()) {
    // Its events that nobody got go with it.
    channel->events.erase([&](const ibv_cq* event) { return event == &cq; });
    --channel->queues;
  }
  --cq.owner->queues;
  --cq.owner->on->completion_queues;
  return 0;
}

int ibv_get_cq_event(ibv_comp_channel* given, ibv_cq** queue, void** cq_context) {
  Channel& channel = *static_cast<Channel*>(given);
  for (;;) {
    if (!channel.events.await()) return -1;
    const auto lock = enter(channel, "completion channel", "ibv_get_cq_event");
    if (!channel.events.pop(queue)) continue;
    ++static_cast<Cq*>(*queue)->unacked_events;
    *cq_context = (*queue)->cq_context;
    return 0;
  }
}

void ibv_ack_cq_events(ibv_cq* queue, unsigned count) {
  Cq& cq = *static_cast<Cq*>(queue);
  const auto lock = enter(cq, "completion queue", "ibv_ack_cq_events");
  if (count > cq.unacked_events)
    fatal("ibv_ack_cq_events: %u events are acknowledged, %llu were got", count,
          static_cast<unsigned long long>(cq.unacked_events));
  cq.unacked_events -= count;
  cq.node->changed().notify_all();
}

ibv_qp* ibv_create_qp(ibv_pd* domain, ibv_qp_init_attr* init) {
  Pd& pd = *static_cast<Pd*>(domain);
  const auto lock = enter(pd, "protection domain", "ibv_create_qp");
  Context& c = *pd.owner;
  if (init->qp_type != IBV_QPT_RC || init->srq != nullptr) {
    violation(EOPNOTSUPP, "only RC queue pairs without a shared receive queue are in the double");
    return nullptr;
  }
  if (init->send_cq == nullptr || init->recv_cq == nullptr || check_caps(*init) != 0) {
    refuse(EINVAL);
    return nullptr;
  }
  Cq& send_cq = *static_cast<Cq*>(init->send_cq);
  Cq& receive_cq = *static_cast<Cq*>(init->recv_cq);
  must_live(send_cq, "completion queue", "ibv_create_qp");
  must_live(receive_cq, "completion queue", "ibv_create_qp");
  if (init->send_cq->context != pd.context || init->recv_cq->context != pd.context) {
    violation(EINVAL, "a queue pair and its completion queues are of different device contexts");
    return nullptr;
  }
  if (c.on->queue_pairs >= config().max_qp) {
    refuse(ENOMEM);
    return nullptr;
  }
  Qp& qp = c.node->make<Qp>(&c);
  qp.qp_num = c.node->add_queue_pair(qp);
  if (qp.qp_num == 0) {
    qp.live = false;
    refuse(ENOMEM);
    return nullptr;
  }
  qp.context = pd.context;
  qp.qp_context = init->qp_context;
  qp.pd = &pd;
  qp.send_cq = &send_cq;
  qp.recv_cq = &receive_cq;
  qp.handle = qp.qp_num;
  qp.state = IBV_QPS_RESET;
  qp.qp_type = IBV_QPT_RC;
  qp.cap = init->cap;
  qp.signal_all = init->sq_sig_all != 0;
  ++send_cq.queue_pairs;
  ++receive_cq.queue_pairs;
  ++pd.queue_pairs;
  ++c.on->queue_pairs;
  return &qp;
}

int ibv_modify_qp(ibv_qp* pair, ibv_qp_attr* attr, int mask) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_modify_qp");
  const int code = modify(qp, *attr, mask);
  qp.node->drain();
  return code;
}

int ibv_query_qp(ibv_qp* pair, ibv_qp_attr* attr, int, ibv_qp_init_attr* init) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_query_qp");
  query(qp, attr, init);
  return 0;
}

int ibv_destroy_qp(ibv_qp* pair) {
  Qp& qp = *static_cast<Qp*>(pair);
  auto lock = enter(qp, "queue pair", "ibv_destroy_qp");
  await_acknowledgements(qp, lock, "ibv_destroy_qp");
  for (const Underway& underway : qp.underway) {
    qp.device().counters.backlog_bytes -= underway.packet.header.payload;
    tell_lost(*qp.node, underway.packet.header);
  }
  qp.underway.clear();
  // Acknowledgements owed go out first, as the hardware sent them at once.
  qp.node->drain();
  forget_requests(qp);
  qp.node->remove_queue_pair(qp);
  qp.live = false;
  forget_events(qp);
  --qp.send_queue().queue_pairs;
  --qp.receive_queue().queue_pairs;
  --qp.domain().queue_pairs;
  --qp.device().queue_pairs;
  return 0;
}

int ibv_query_ece(ibv_qp* pair, ibv_ece* ece) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_query_ece");
  if (config().lack("ece")) return refuse(EOPNOTSUPP);
  *ece = qp.ece;
  return 0;
}

int ibv_set_ece(ibv_qp* pair, ibv_ece* ece) {
  Qp& qp = *static_cast<Qp*>(pair);
  const auto lock = enter(qp, "queue pair", "ibv_set_ece");
  if (ece->vendor_id == 0) return 0;
  if (config().lack("ece")) return refuse(EOPNOTSUPP);
  if (ece->comp_mask != 0) return refuse(EINVAL);
  if (qp.state != IBV_QPS_RESET && qp.state != IBV_QPS_INIT)
    return violation(EINVAL, "ibv_set_ece on queue pair %u in state %s, after INIT", qp.qp_num,
                     state_name(qp.state));
  qp.ece.vendor_id = ece->vendor_id;
  qp.ece.options &= ece->options;
  return 0;
}

int ibv_query_qp_data_in_order(ibv_qp*, ibv_wr_opcode, uint32_t) { return 0; }

ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp*) { return nullptr; }

}  // extern "C"
