// The double's objects behind the pointers of verbs.h. A destroyed object stays as a tombstone
// (live == false) until the process ends, so that its use is told instead of crashing.
#pragma once

#include <infiniband/verbs.h>

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "tests/doubles/ibverbs/config.h"
#include "tests/doubles/ibverbs/event_queue.h"
#include "tests/doubles/ibverbs/packet.h"

namespace rdma_double {

class Node;
struct Context;
struct Qp;

struct Port {
  bool up = true;
  std::vector<GidEntry> gids;
};

// What a device counts; read by rdma_double_device_statistics. Times of the receiving side are by
// the simulated clock of its rate: a packet takes its bytes divided by the rate, whatever the
// machine does.
struct DeviceCounters {
  uint64_t received_bytes = 0;
  uint64_t received_packets = 0;
  uint64_t dropped_packets = 0;
  uint64_t backlog_bytes = 0;  // arrived, not yet executed
  uint64_t max_backlog_bytes = 0;
  int64_t busy_ns = 0;
  int64_t first_ns = 0;
  int64_t last_ns = 0;
  uint64_t registrations = 0;
};

// A write into GPU memory that has left the device and not arrived.
struct LateWrite {
  std::byte* to = nullptr;
  std::vector<std::byte> bytes;
};

struct Device : ibv_device {
  std::vector<LateWrite> late;
  int index = 0;
  uint64_t guid = 0;  // host order
  std::vector<Port> port;
  uint64_t receive_rate = 0;  // bytes per second; 0: any
  int64_t busy_until_ns = 0;
  DeviceCounters counters;
  std::set<Context*> contexts;
  uint64_t registered_bytes = 0;
  int queue_pairs = 0, completion_queues = 0, regions = 0, domains = 0;

  Port& at(int number) { return port[static_cast<size_t>(number - 1)]; }
};

struct Object {
  Node* node = nullptr;
  Context* owner = nullptr;
  bool live = true;
};

struct Context : Object {
  verbs_context verbs{};
  Device* on = nullptr;
  EventQueue<ibv_async_event> events;
  int domains = 0, queues = 0, channels = 0;

  ibv_context* abi() { return &verbs.context; }
  static Context& of(ibv_context* context) {
    return *reinterpret_cast<Context*>(verbs_get_ctx(context)->priv);
  }
};

struct Pd : ibv_pd, Object {
  int regions = 0, queue_pairs = 0;
};

struct Mr : ibv_mr, Object {
  uint64_t iova = 0;
  std::byte* base = nullptr;  // where iova lies in this process
  unsigned access_flags = 0;
  void* mapping = nullptr;  // of a DMA-BUF
  size_t mapping_length = 0;
  bool late = false;  // GPU memory: see RDMA_DOUBLE_LATE_GPU

  Pd& domain() { return *static_cast<Pd*>(pd); }
};

struct Channel : ibv_comp_channel, Object {
  EventQueue<ibv_cq*> events;
  int queues = 0;
};

// A completion and what polling it gives back to the queue that it came from.
struct Completion {
  ibv_wc wc{};
  Qp* of = nullptr;
  uint32_t send_slots = 0;
  uint32_t receive_slots = 0;
};

enum class Armed { kNo, kSolicited, kAny };

struct Cq : ibv_cq, Object {
  std::deque<Completion> entries;
  Armed armed = Armed::kNo;
  int queue_pairs = 0;       // users; one that uses it for both directions counts twice
  uint64_t outstanding = 0;  // requests posted that may still add an entry
  uint64_t unacked_events = 0;
  bool overrun = false;

  Channel* events_to() { return static_cast<Channel*>(channel); }
};

struct SendRequest {
  uint64_t id = 0;
  ibv_wr_opcode opcode = IBV_WR_SEND;
  unsigned flags = 0;  // ibv_send_flags
  uint32_t immediate = 0;
  uint64_t remote = 0;
  uint32_t rkey = 0;
  std::vector<ibv_sge> pieces;
  std::vector<std::byte> inline_bytes;
  uint64_t length = 0;
  uint64_t first = 0;     // PSN, not wrapped
  uint64_t packets = 1;   // PSNs
  uint64_t answered = 0;  // bytes of a read that arrived
  uint64_t number = 0;    // the how-manieth of its queue pair, from 1
  bool asked = false;     // a read whose request is under way
  uint64_t end() const { return first + packets; }
  bool is_read() const { return opcode == IBV_WR_RDMA_READ; }
  bool is_send() const { return opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM; }
  bool has_immediate() const {
    return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
  }
};

struct ReceiveRequest {
  uint64_t id = 0;
  std::vector<ibv_sge> pieces;
  uint64_t length = 0;
};

// A packet on its way to a queue pair of this process: it waits for its time, or is held by a test.
struct Underway {
  Packet packet;
  int64_t due_ns = 0;
};

struct QpCounters {
  uint64_t posted_sends = 0;
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t retransmissions = 0;
  uint64_t not_ready = 0;  // RNR NAKs taken
  uint64_t max_in_flight_packets = 0;
};

struct Qp : ibv_qp, Object {
  uint64_t serial = 0;  // the how-manieth of the process since no device was open, from 1
  ibv_qp_cap cap{};
  bool signal_all = false;
  ibv_qp_attr attr{};        // as last set
  bool established = false;  // a packet has come in
  uint64_t unacked_events = 0;
  ibv_ece ece{0xd0b1e, 1, 0};

  // Requester.
  std::deque<SendRequest> sends;
  uint32_t send_slots = 0;    // in use: until a completion of it or of a later one is polled
  uint32_t silent_slots = 0;  // done without a completion since the last one with one
  uint64_t next_number = 1;
  uint64_t post_psn = 0;      // of the next request posted
  uint64_t sent_psn = 0;      // of the next packet sent
  uint64_t furthest_psn = 0;  // sent at all, ever
  uint64_t acked_psn = 0;     // all before are acknowledged
  uint32_t wave = 0;
  bool waiting = false;  // for a timer before sending again
  uint32_t retries = 0, not_ready_retries = 0;
  int reads = 0;             // outstanding
  uint64_t losses = 0;       // so many of the next packets are lost
  uint64_t fail_number = 0;  // this request ends with fail_status; 0: none
  ibv_wc_status fail_status = IBV_WC_SUCCESS;

  // Responder.
  std::deque<ReceiveRequest> receives;
  uint32_t receive_slots = 0;  // in use: until the completion is polled
  uint64_t expected_psn = 0;
  uint64_t initial_psn = 0;
  bool ack_owed = false;
  bool keeps_receives = false;  // a test wants that they do not come back in ERR

  std::deque<Underway> underway;
  bool held = false;
  bool hold_reported = false;  // packets held are told to their sender as lost
  bool answers_held = false;   // a test holds them, too
  std::deque<Packet> held_answers;

  QpCounters counters;

  Pd& domain() { return *static_cast<Pd*>(pd); }
  Cq& send_queue() { return *static_cast<Cq*>(send_cq); }
  Cq& receive_queue() { return *static_cast<Cq*>(recv_cq); }
  Device& device() { return *owner->on; }
};

inline uint32_t mtu_bytes(ibv_mtu mtu) { return 128u << mtu; }

}  // namespace rdma_double
