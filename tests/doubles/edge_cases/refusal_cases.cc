// What the other side refuses, and what happens when it is not there.
#include "tests/doubles/edge_cases/cases.h"

namespace libcomm::test {
namespace {

// The outcome of the posted request, and the states in which it leaves both queue pairs.
std::string outcome(Pair& pair) {
  const std::string status = next(pair.a);
  return status + ", requester " + words(pair.a.state()) + ", responder " + words(pair.b.state());
}

std::string at_address(ibv_wr_opcode opcode, size_t bytes, int64_t distance_from_end) {
  Pair pair(patient());
  if (opcode == IBV_WR_RDMA_WRITE_WITH_IMM) pair.b.receive(1, 0);
  ibv_send_wr& request = pair.a.request(opcode, 1, bytes);
  request.wr.rdma.remote_addr =
      pair.a.peer.buffer + pair.b.buffer.size() + static_cast<uint64_t>(distance_from_end);
  pair.a.post(request);
  return outcome(pair);
}

std::string before_the_region() {
  Pair pair(patient());
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
  request.wr.rdma.remote_addr -= 1;
  pair.a.post(request);
  return outcome(pair);
}

std::string with_key(ibv_wr_opcode opcode, size_t bytes, uint32_t difference) {
  Pair pair(patient());
  ibv_send_wr& request = pair.a.request(opcode, 1, bytes);
  request.wr.rdma.rkey += difference;
  pair.a.post(request);
  return outcome(pair);
}

std::string of_region_with(int access, ibv_wr_opcode opcode) {
  EndpointOptions options = patient(), other = patient();
  other.buffer_access = access;
  Pair pair(options, other);
  pair.a.send(opcode, 1, 8);
  return outcome(pair);
}

std::string of_queue_pair_with(unsigned access, ibv_wr_opcode opcode) {
  EndpointOptions options = patient(), other = patient();
  other.queue_pair_access = access;
  Pair pair(options, other);
  pair.a.send(opcode, 1, 8);
  return outcome(pair);
}

std::string of_another_domain() {
  Pair pair(patient());
  ibv_pd* domain = ibv_alloc_pd(pair.b.context);
  ibv_mr* region =
      ibv_reg_mr(domain, pair.b.data(), 100, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
  request.wr.rdma.rkey = region->rkey;
  pair.a.post(request);
  const std::string text = outcome(pair);
  ibv_dereg_mr(region);
  ibv_dealloc_pd(domain);
  return text;
}

std::string after_deregistration() {
  Pair pair(patient());
  ibv_dereg_mr(pair.b.mr);
  pair.b.mr = nullptr;
  pair.a.send(IBV_WR_RDMA_WRITE, 1, 8);
  return outcome(pair);
}

std::string without_receive(ibv_wr_opcode opcode, uint8_t retries) {
  EndpointOptions options = patient();
  options.receiver_retry = retries;
  Pair pair(options);
  pair.a.send(opcode, 1, 8);
  return outcome(pair);
}

std::string with_late_receive() {
  EndpointOptions options = patient();
  options.receiver_retry = 7;
  Pair pair(options);
  pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, 1, 8);
  if (pair.a.completion_within(std::chrono::milliseconds(100))) return "completed too early";
  pair.b.receive(1, 0);
  return outcome(pair);
}

std::string longer_than_receive() {
  Pair pair(patient());
  pair.b.receive(1, 100);
  pair.b.receive(2, 100);
  pair.a.send(IBV_WR_SEND, 1, 101);
  const std::string sender = next(pair.a), first = next(pair.b), second = next(pair.b);
  return "sender " + sender + ", receiver " + first + ", then " + second;
}

std::string receive_with_wrong_key() {
  Pair pair(patient());
  ibv_sge piece = {reinterpret_cast<uint64_t>(pair.b.data()), 100, pair.b.mr->lkey + 0x1000};
  ibv_recv_wr request{};
  request.sg_list = &piece;
  request.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  if (const int result = ibv_post_recv(pair.b.qp, &request, &bad); result != 0)
    return "post " + code(result);
  pair.a.send(IBV_WR_SEND, 1, 100);
  const std::string sender = next(pair.a), receiver = next(pair.b);
  return "sender " + sender + ", receiver " + receiver;
}

std::string send_from(uint32_t key_difference, size_t offset) {
  Pair pair(patient());
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8, offset);
  request.sg_list->lkey += key_difference;
  if (const int result = pair.a.post(request); result != 0) return "post " + code(result);
  const std::string status = next(pair.a);
  return status + ", requester " + words(pair.a.state());
}

std::string read_into_constant() {
  EndpointOptions options = patient(), other = patient();
  options.buffer_access = 0;
  Pair pair(options, other);
  if (const int result = pair.a.send(IBV_WR_RDMA_READ, 1, 8); result != 0)
    return "post " + code(result);
  return next(pair.a);
}

std::string to_destroyed() {
  Pair pair(patient());
  pair.b.destroy_queue_pair();
  pair.a.send(IBV_WR_RDMA_WRITE, 1, 8);
  const std::string status = next(pair.a);
  return status + ", requester " + words(pair.a.state());
}

std::string to_state(ibv_qp_state state) {
  const EndpointOptions options = patient();
  Endpoint a(options), b(options);
  a.connect(b.address());
  b.to_init();
  if (state != IBV_QPS_INIT) b.to_receive(a.address());
  if (state == IBV_QPS_ERR) b.to(IBV_QPS_ERR);
  a.send(IBV_WR_RDMA_WRITE, 1, 8);
  return next(a);
}

std::string mtus(ibv_mtu requester, ibv_mtu responder, size_t bytes) {
  EndpointOptions options = patient(), other = patient();
  options.mtu = requester;
  other.mtu = responder;
  Pair pair(options, other);
  pair.a.send(IBV_WR_RDMA_WRITE, 1, bytes);
  return next(pair.a);
}

}  // namespace

void add_refusal_cases(std::vector<EdgeCase>* cases) {
  const auto add = [&](std::string name, std::function<std::string()> run) {
    cases->push_back({std::move(name), std::move(run)});
  };
  add("write up to the end of the region", [] { return at_address(IBV_WR_RDMA_WRITE, 8, -8); });
  add("write beyond the end of the region", [] { return at_address(IBV_WR_RDMA_WRITE, 8, -7); });
  add("long write beyond the end of the region",
      [] { return at_address(IBV_WR_RDMA_WRITE, 5000, -4999); });
  add("write with immediate beyond the end of the region",
      [] { return at_address(IBV_WR_RDMA_WRITE_WITH_IMM, 8, -7); });
  add("read beyond the end of the region", [] { return at_address(IBV_WR_RDMA_READ, 8, -7); });
  add("write before the region", before_the_region);
  add("write with a wrong rkey", [] { return with_key(IBV_WR_RDMA_WRITE, 8, 0x1000); });
  add("read with a wrong rkey", [] { return with_key(IBV_WR_RDMA_READ, 8, 0x1000); });
  add("empty write with a wrong rkey", [] { return with_key(IBV_WR_RDMA_WRITE, 0, 0x1000); });
  add("write to a region without remote write", [] {
    return of_region_with(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, IBV_WR_RDMA_WRITE);
  });
  add("read of a region without remote read", [] {
    return of_region_with(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, IBV_WR_RDMA_READ);
  });
  add("write to a queue pair without remote write",
      [] { return of_queue_pair_with(IBV_ACCESS_REMOTE_READ, IBV_WR_RDMA_WRITE); });
  add("read of a queue pair without remote read",
      [] { return of_queue_pair_with(IBV_ACCESS_REMOTE_WRITE, IBV_WR_RDMA_READ); });
  add("write to a region of another protection domain", of_another_domain);
  add("write to a deregistered region", after_deregistration);
  for (const int retries : {0, 1, 6}) {
    const std::string tries = " without a receive, rnr_retry " + std::to_string(retries);
    const auto times = static_cast<uint8_t>(retries);
    add("write with immediate" + tries,
        [=] { return without_receive(IBV_WR_RDMA_WRITE_WITH_IMM, times); });
    add("send" + tries, [=] { return without_receive(IBV_WR_SEND, times); });
  }
  add("write with immediate and a late receive, rnr_retry 7", with_late_receive);
  add("send longer than the receive", longer_than_receive);
  add("receive with a wrong lkey", receive_with_wrong_key);
  add("write with a wrong lkey", [] { return send_from(0x1000, 0); });
  add("write of bytes beyond the own region",
      [] { return send_from(0, patient().buffer_bytes - 7); });
  add("read into a region without local write", read_into_constant);
  add("write to a destroyed queue pair", to_destroyed);
  add("write to a queue pair in INIT", [] { return to_state(IBV_QPS_INIT); });
  add("write to a queue pair in RTR", [] { return to_state(IBV_QPS_RTR); });
  add("write to a queue pair in ERR", [] { return to_state(IBV_QPS_ERR); });
  add("one packet from a larger MTU", [] { return mtus(IBV_MTU_2048, IBV_MTU_1024, 1024); });
  add("long packets from a larger MTU", [] { return mtus(IBV_MTU_2048, IBV_MTU_1024, 6000); });
  add("short packets from a smaller MTU", [] { return mtus(IBV_MTU_512, IBV_MTU_1024, 6000); });
}

}  // namespace libcomm::test
