#include "tests/doubles/ibverbs/control.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/responder.h"

using namespace rdma_double;

namespace {

Device* device_named(Node& node, const std::string& name) {
  for (Device* device : node.known_devices())
    if (name == device->name) return device;
  return nullptr;
}

void describe(Qp& qp, rdma_double_qp_t* out) {
  *out = {};
  out->number = qp.qp_num;
  out->destination = qp.attr.dest_qp_num;
  out->serial = qp.serial;
  out->state = qp.state;
  out->device = qp.device().index;
  out->posted_sends = qp.counters.posted_sends;
  out->sent_bytes = qp.counters.sent_bytes;
  out->received_bytes = qp.counters.received_bytes;
  out->in_flight_packets = qp.state == IBV_QPS_RTS ? qp.sent_psn - qp.acked_psn : 0;
  out->max_in_flight_packets = qp.counters.max_in_flight_packets;
  out->retransmissions = qp.counters.retransmissions;
  out->receiver_not_ready = qp.counters.not_ready;
  out->underway_packets = qp.underway.size();
}

// Runs `action` on the queue pair, then what it set off.
template <typename Action>
int with_queue_pair(uint32_t number, Action action) {
  Node& node = Node::current();
  const auto lock = node.lock();
  Qp* qp = node.find_queue_pair(number);
  if (qp == nullptr) return ENOENT;
  action(*qp);
  node.drain();
  return 0;
}

template <typename Action>
int with_device(const char* name, Action action) {
  Node& node = Node::current();
  const auto lock = node.lock();
  Device* device = device_named(node, name);
  if (device == nullptr) return ENOENT;
  return action(node, *device);
}

}  // namespace

extern "C" {

int rdma_double_list(rdma_double_qp_t* out, int room) {
  Node& node = Node::current();
  const auto lock = node.lock();
  std::vector<Qp*> all;
  for (const auto& [number, qp] : node.queue_pairs()) all.push_back(qp);
  std::sort(all.begin(), all.end(), [](const Qp* a, const Qp* b) { return a->serial < b->serial; });
  for (size_t i = 0; i < all.size() && i < static_cast<size_t>(std::max(room, 0)); ++i)
    describe(*all[i], &out[i]);
  return static_cast<int>(all.size());
}

int rdma_double_qp(uint32_t number, rdma_double_qp_t* out) {
  return with_queue_pair(number, [&](Qp& qp) { describe(qp, out); });
}

int rdma_double_device(const char* name, rdma_double_device_t* out) {
  return with_device(name, [&](Node&, const Device& device) {
    const DeviceCounters& counters = device.counters;
    *out = {};
    out->received_bytes = counters.received_bytes;
    out->received_packets = counters.received_packets;
    out->dropped_packets = counters.dropped_packets;
    out->backlog_bytes = counters.backlog_bytes;
    out->max_backlog_bytes = counters.max_backlog_bytes;
    out->busy_ns = static_cast<uint64_t>(counters.busy_ns);
    out->registrations = counters.registrations;
    out->span_ns = static_cast<uint64_t>(counters.last_ns - counters.first_ns);
    return 0;
  });
}

int rdma_double_regions(const void* address, uint64_t bytes) {
  Node& node = Node::current();
  const auto lock = node.lock();
  const auto* begin = static_cast<const std::byte*>(address);
  return static_cast<int>(
      std::count_if(node.regions().begin(), node.regions().end(), [&](const auto& entry) {
        const Mr& mr = *entry.second;
        return mr.base < begin + bytes && begin < mr.base + mr.length;
      }));
}

int rdma_double_kill(uint32_t number) {
  return with_queue_pair(number, [](Qp& qp) {
    ibv_async_event event{};
    event.element.qp = &qp;
    event.event_type = IBV_EVENT_QP_FATAL;
    qp.node->event(*qp.owner, event);
    enter_error(qp);
  });
}

int rdma_double_keep_receives(uint32_t number) {
  return with_queue_pair(number, [](Qp& qp) { qp.keeps_receives = true; });
}

int rdma_double_fail_next(uint32_t number, int status) {
  return with_queue_pair(number, [&](Qp& qp) {
    qp.fail_number = qp.next_number;
    qp.fail_status = static_cast<ibv_wc_status>(status);
  });
}

int rdma_double_lose_next(uint32_t number, uint64_t packets) {
  return with_queue_pair(number, [&](Qp& qp) { qp.losses = packets; });
}

int rdma_double_hold(uint32_t number, int sender_times_out) {
  return with_queue_pair(number, [&](Qp& qp) {
    qp.held = true;
    qp.hold_reported = sender_times_out != 0;
  });
}

int rdma_double_hold_answers(uint32_t number) {
  return with_queue_pair(number, [](Qp& qp) { qp.answers_held = true; });
}

int rdma_double_release(uint32_t number) {
  return with_queue_pair(number, [](Qp& qp) {
    qp.held = qp.answers_held = false;
    deliver_due(qp);
    for (Packet& answer : std::exchange(qp.held_answers, {})) answered(qp, answer);
  });
}

int rdma_double_port(const char* name, int port, int up) {
  return with_device(name, [&](Node& node, Device& device) {
    if (port < 1 || static_cast<size_t>(port) > device.port.size()) return ENOENT;
    node.set_port(device, port, up != 0);
    return 0;
  });
}

int rdma_double_receive_rate(const char* name, uint64_t rate) {
  return with_device(name, [&](Node&, Device& device) {
    device.receive_rate = rate;
    return 0;
  });
}

}  // extern "C"
