// Sizes, events, the order of destruction, registration.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

#include <cerrno>
#include <thread>

#include "tests/doubles/edge_cases/cases.h"

namespace libcomm::test {
namespace {

std::string inline_beyond_limit() {
  EndpointOptions options = patient();
  Pair pair(options);
  return code(pair.a.send(IBV_WR_RDMA_WRITE, 1, pair.a.cap.max_inline_data + 1, 0, 0,
                          IBV_SEND_SIGNALED | IBV_SEND_INLINE));
}

std::string too_many_pieces(bool receive) {
  Pair pair(patient());
  std::vector<ibv_sge> pieces(1 + (receive ? pair.a.cap.max_recv_sge : pair.a.cap.max_send_sge),
                              {reinterpret_cast<uint64_t>(pair.a.data()), 1, pair.a.mr->lkey});
  if (receive) {
    ibv_recv_wr request{};
    request.sg_list = pieces.data();
    request.num_sge = static_cast<int>(pieces.size());
    ibv_recv_wr* bad = nullptr;
    return code(ibv_post_recv(pair.a.qp, &request, &bad));
  }
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
  request.sg_list = pieces.data();
  request.num_sge = static_cast<int>(pieces.size());
  return code(pair.a.post(request));
}

// Devices may round sizes up: twice the size is too much everywhere.
std::string receive_overrun() {
  Pair pair(patient());
  for (uint32_t i = 0; i < 2 * pair.a.cap.max_recv_wr + 2; ++i)
    if (const int result = pair.a.receive(i, 8); result != 0) return code(result);
  return "no error";
}

std::string send_overrun() {
  const EndpointOptions options = patient();
  Endpoint a(options), b(options);
  a.connect(b.address());  // nobody answers
  for (uint32_t i = 0; i < 2 * a.cap.max_send_wr + 2; ++i)
    if (const int result = a.send(IBV_WR_RDMA_WRITE, i, 8); result != 0) return code(result);
  return "no error";
}

std::string first_bad_request() {
  Pair pair(patient());
  ibv_sge piece = {reinterpret_cast<uint64_t>(pair.a.data()), 8, pair.a.mr->lkey};
  ibv_send_wr list[3] = {};
  for (uint64_t i = 0; i < 3; ++i) {
    list[i].wr_id = i;
    list[i].sg_list = &piece;
    list[i].num_sge = i == 1 ? 100 : 1;
    list[i].opcode = IBV_WR_RDMA_WRITE;
    list[i].send_flags = IBV_SEND_SIGNALED;
    list[i].wr.rdma.remote_addr = pair.a.peer.buffer;
    list[i].wr.rdma.rkey = pair.a.peer.rkey;
    if (i < 2) list[i].next = &list[i + 1];
  }
  ibv_send_wr* bad = nullptr;
  const int result = ibv_post_send(pair.a.qp, list, &bad);
  const std::string first = next(pair.a);
  const bool more = pair.a.completion_within(std::chrono::milliseconds(200)).has_value();
  return code(result) + " for request " + std::to_string(bad - list) + ", the first: " + first +
         (more ? ", more completed" : ", no other");
}

std::string created(uint32_t send_slots, uint32_t pieces, int completions) {
  Endpoint endpoint(patient());
  errno = 0;
  ibv_cq* cq = ibv_create_cq(endpoint.context, completions, nullptr, nullptr, 0);
  if (cq == nullptr) return "completion queue " + code(errno);
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = cq;
  init.cap = {send_slots, 1, pieces, 1, 0};
  init.qp_type = IBV_QPT_RC;
  errno = 0;
  ibv_qp* qp = ibv_create_qp(endpoint.pd, &init);
  const std::string text = "queue pair " + (qp == nullptr ? code(errno) : "made");
  if (qp != nullptr) ibv_destroy_qp(qp);
  ibv_destroy_cq(cq);
  return text;
}

std::string busy_domain() {
  Endpoint endpoint(patient());
  return code(ibv_dealloc_pd(endpoint.pd));
}

std::string busy_completion_queue() {
  Endpoint endpoint(patient());
  return code(ibv_destroy_cq(endpoint.cq));
}

std::string registered(void* address, size_t length, unsigned access) {
  Endpoint endpoint(patient());
  errno = 0;
  ibv_mr* region = ibv_reg_mr(endpoint.pd, address, length, access);
  const std::string text = region == nullptr ? code(errno) : "success";
  if (region != nullptr) ibv_dereg_mr(region);
  return text;
}

std::string unmapped(bool within) {
  constexpr size_t kPage = 4096;
  void* memory =
      ::mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* hole = static_cast<char*>(memory) + kPage;
  ::munmap(hole, kPage);
  const std::string text = within ? registered(memory, 3 * kPage, IBV_ACCESS_LOCAL_WRITE)
                                  : registered(hole, kPage, IBV_ACCESS_LOCAL_WRITE);
  ::munmap(memory, kPage);
  ::munmap(hole + kPage, kPage);
  return text;
}

std::string constant(unsigned access) {
  constexpr size_t kPage = 4096;
  void* memory = ::mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const std::string text = registered(memory, kPage, access);
  ::munmap(memory, kPage);
  return text;
}

// Whether the channel has an event; takes it.
bool event(Endpoint& endpoint) {
  pollfd entry{endpoint.channel->fd, POLLIN, 0};
  if (::poll(&entry, 1, 300) != 1) return false;
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  if (ibv_get_cq_event(endpoint.channel, &cq, &context) != 0) return false;
  ibv_ack_cq_events(cq, 1);
  return cq == endpoint.cq && context == &endpoint;
}

std::string told(bool yes) { return yes ? "event" : "no event"; }

// One message into a completion queue with a channel.
std::string events(int solicited_only, bool armed, unsigned flags, bool completed_before) {
  EndpointOptions options = patient();
  options.with_channel = true;
  Pair pair(options);
  pair.b.receive(1, 8);
  if (armed && !completed_before) ibv_req_notify_cq(pair.b.cq, solicited_only);
  pair.a.send(IBV_WR_SEND, 1, 8, 0, 0, IBV_SEND_SIGNALED | flags);
  pair.a.completion();
  if (completed_before) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ibv_req_notify_cq(pair.b.cq, solicited_only);
  }
  return told(event(pair.b));
}

std::string one_event_per_arming() {
  EndpointOptions options = patient();
  options.with_channel = true;
  Pair pair(options);
  for (uint64_t i = 0; i < 3; ++i) pair.b.receive(i, 8);
  ibv_req_notify_cq(pair.b.cq, 0);
  for (uint64_t i = 0; i < 3; ++i) {
    pair.a.send(IBV_WR_SEND, i, 8);
    pair.a.completion();
  }
  const bool first = event(pair.b), second = event(pair.b);
  return told(first) + ", then " + told(second);
}

std::string event_of_solicited_write() {
  EndpointOptions options = patient();
  options.with_channel = true;
  Pair pair(options);
  pair.b.receive(1, 0);
  ibv_req_notify_cq(pair.b.cq, 1);
  pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, 1, 3000, 0, 0, IBV_SEND_SIGNALED | IBV_SEND_SOLICITED);
  pair.a.completion();
  return told(event(pair.b));
}

std::string event_of_flush() {
  EndpointOptions options = patient();
  options.with_channel = true;
  Endpoint endpoint(options);
  endpoint.to_init();
  endpoint.receive(1, 8);
  ibv_req_notify_cq(endpoint.cq, 1);
  endpoint.to(IBV_QPS_ERR);
  return told(event(endpoint));
}

std::string without_blocking() {
  EndpointOptions options = patient();
  options.with_channel = true;
  Endpoint endpoint(options);
  ::fcntl(endpoint.channel->fd, F_SETFL, O_NONBLOCK);
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  const int result = ibv_get_cq_event(endpoint.channel, &cq, &context);
  return result == -1 && errno == EAGAIN ? "EAGAIN" : "result " + std::to_string(result);
}

// The next asynchronous event of the endpoint's device.
std::string asynchronous_event(Endpoint& endpoint) {
  pollfd entry{endpoint.context->async_fd, POLLIN, 0};
  ibv_async_event event{};
  if (::poll(&entry, 1, 500) != 1 || ibv_get_async_event(endpoint.context, &event) != 0)
    return "no event";
  ibv_ack_async_event(&event);
  return ibv_event_type_str(event.event_type);
}

std::string completion_overrun() {
  EndpointOptions options = patient(), other = patient();
  options.completions = 2;
  Pair pair(options, other);
  for (uint64_t i = 0; i < 60; ++i) pair.a.send(IBV_WR_RDMA_WRITE, i, 8);
  return asynchronous_event(pair.a);
}

std::string first_packet() {
  const EndpointOptions options = patient();
  Endpoint a(options), b(options);
  a.connect(b.address());
  b.to_init();
  b.to_receive(a.address());
  a.send(IBV_WR_RDMA_WRITE, 1, 8);
  a.completion();
  return asynchronous_event(b);
}

std::string refused_write() {
  Pair pair(patient());
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
  request.wr.rdma.rkey += 0x1000;
  pair.a.post(request);
  pair.a.completion();
  return asynchronous_event(pair.b);
}

std::string port(uint8_t number) {
  Endpoint endpoint(patient());
  ibv_port_attr attributes{};
  return code(ibv_query_port(endpoint.context, number, &attributes));
}

}  // namespace

void add_queue_cases(std::vector<EdgeCase>* cases) {
  const auto add = [&](std::string name, std::function<std::string()> run) {
    cases->push_back({std::move(name), std::move(run)});
  };
  add("inline data beyond the limit", inline_beyond_limit);
  add("send with too many pieces", [] { return too_many_pieces(false); });
  add("receive with too many pieces", [] { return too_many_pieces(true); });
  add("receive queue overrun", receive_overrun);
  add("send queue overrun", send_overrun);
  add("list of sends with a bad one", first_bad_request);
  add("queue pair of ordinary size", [] { return created(16, 2, 16); });
  add("queue pair with too many requests", [] { return created(1u << 30, 2, 16); });
  add("queue pair with too many pieces", [] { return created(16, 100'000, 16); });
  add("completion queue without entries", [] { return created(16, 2, 0); });
  add("completion queue with too many entries", [] { return created(16, 2, 1 << 30); });
  add("protection domain in use deallocated", busy_domain);
  add("completion queue in use destroyed", busy_completion_queue);
  add("unmapped memory registered", [] { return unmapped(false); });
  add("memory with a hole registered", [] { return unmapped(true); });
  add("constant memory registered for reading", [] { return constant(IBV_ACCESS_REMOTE_READ); });
  add("constant memory registered for writing", [] { return constant(IBV_ACCESS_LOCAL_WRITE); });
  add("remote write without local write registered", [] {
    static char bytes[64];
    return registered(bytes, sizeof(bytes), IBV_ACCESS_REMOTE_WRITE);
  });
  add("event of any completion", [] { return events(0, true, 0, false); });
  add("event without arming", [] { return events(0, false, 0, false); });
  add("event of a completion before arming", [] { return events(0, true, 0, true); });
  add("event of solicited, unsolicited send", [] { return events(1, true, 0, false); });
  add("event of solicited, solicited send",
      [] { return events(1, true, IBV_SEND_SOLICITED, false); });
  add("event of solicited, solicited write with immediate", event_of_solicited_write);
  add("event of solicited, flush", event_of_flush);
  add("events of three completions", one_event_per_arming);
  add("event got without blocking", without_blocking);
  add("asynchronous event of an overrun completion queue", completion_overrun);
  add("asynchronous event of the first packet in RTR", first_packet);
  add("asynchronous event of a refused write at its target", refused_write);
  add("port 0 queried", [] { return port(0); });
  add("port 1 queried", [] { return port(1); });
  add("port 2 queried", [] { return port(2); });
}

}  // namespace libcomm::test
