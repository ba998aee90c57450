// The states of a queue pair: what leads where, what may be posted, what is flushed.
#include <stdexcept>
#include <utility>

#include "tests/doubles/edge_cases/cases.h"

namespace libcomm::test {
namespace {

constexpr int kToInit = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
constexpr int kToRtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                       IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
constexpr int kToRts = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                       IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

// Attributes good for every step.
ibv_qp_attr attributes(const Endpoint& endpoint, ibv_qp_state state) {
  const Address own = endpoint.address();
  ibv_qp_attr attr{};
  attr.qp_state = state;
  attr.port_num = 1;
  attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  attr.path_mtu = IBV_MTU_1024;
  attr.dest_qp_num = own.queue_pair;
  attr.max_dest_rd_atomic = attr.max_rd_atomic = 1;
  attr.min_rnr_timer = 1;
  attr.timeout = 14;
  attr.retry_cnt = attr.rnr_retry = 1;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = 1;
  attr.ah_attr.grh.dgid = own.gid;
  attr.ah_attr.grh.sgid_index = static_cast<uint8_t>(endpoint.options.gid_index);
  attr.ah_attr.grh.hop_limit = 64;
  return attr;
}

// Brings the queue pair, connected to itself, into the state.
void bring(Endpoint& endpoint, ibv_qp_state state) {
  const std::pair<ibv_qp_state, int> steps[] = {
      {IBV_QPS_INIT, kToInit}, {IBV_QPS_RTR, kToRtr}, {IBV_QPS_RTS, kToRts}};
  for (const auto& [to, mask] : steps) {
    if (state < to) break;
    ibv_qp_attr attr = attributes(endpoint, to);
    if (ibv_modify_qp(endpoint.qp, &attr, mask) != 0) throw std::runtime_error("cannot connect");
    if (state == to) break;
  }
  if (state == IBV_QPS_ERR) endpoint.to(IBV_QPS_ERR);
}

std::string change(ibv_qp_state from, ibv_qp_state to, int mask) {
  Endpoint endpoint(patient());
  bring(endpoint, from);
  ibv_qp_attr attr = attributes(endpoint, to);
  const std::string result = code(ibv_modify_qp(endpoint.qp, &attr, mask));
  return result + ", " + words(endpoint.state());
}

template <typename Change>
std::string with(ibv_qp_state from, ibv_qp_state to, int mask, Change spoil) {
  Endpoint endpoint(patient());
  bring(endpoint, from);
  ibv_qp_attr attr = attributes(endpoint, to);
  spoil(attr);
  return code(ibv_modify_qp(endpoint.qp, &attr, mask));
}

std::string post_send_in(ibv_qp_state state) {
  Endpoint endpoint(patient());
  bring(endpoint, state);
  const int result = endpoint.send(IBV_WR_RDMA_WRITE, 1, 8);
  return result == 0 ? next(endpoint) : "post " + code(result);
}

std::string post_receive_in(ibv_qp_state state) {
  Endpoint endpoint(patient());
  bring(endpoint, state);
  const int result = endpoint.receive(1, 8);
  if (result != 0 || state != IBV_QPS_ERR) return "post " + code(result);
  return next(endpoint);
}

std::string flush_order() {
  EndpointOptions options = patient();
  options.timeout = 20;  // 4.3 s: the state changes before the first request has failed
  Endpoint a(options), b(options);
  a.connect(b.address());  // nobody answers
  for (uint64_t i = 0; i < 4; ++i) a.receive(100 + i, 8);
  for (uint64_t i = 0; i < 4; ++i)
    a.send(IBV_WR_RDMA_WRITE, i, 8, 0, 0, i % 2 == 0 ? unsigned{IBV_SEND_SIGNALED} : 0u);
  a.to(IBV_QPS_ERR);
  uint64_t next_send = 0, next_receive = 100;
  for (int i = 0; i < 8; ++i) {
    const std::optional<ibv_wc> wc = a.completion_within(std::chrono::seconds(60));
    if (!wc) return std::to_string(i) + " of 8 requests flushed";
    if (wc->status != IBV_WC_WR_FLUSH_ERR) return words(wc->status);
    uint64_t& expected = wc->wr_id < 100 ? next_send : next_receive;
    if (wc->wr_id != expected++) return "out of order";
  }
  return "sends and receives flushed in order, unsignaled sends, too";
}

std::string flush_after_error() {
  Pair pair(patient());
  ibv_send_wr& bad = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
  bad.wr.rdma.rkey += 0x1000;
  pair.a.receive(2, 8);
  pair.a.post(bad);
  const ibv_wc first = pair.a.completion();
  const ibv_wc second = pair.a.completion();
  pair.a.send(IBV_WR_RDMA_WRITE, 3, 8);
  const ibv_wc third = pair.a.completion();
  return words(first.status) + ", receive " + words(second.status) + ", later send " +
         words(third.status);
}

std::string reset_forgets() {
  EndpointOptions options = patient();
  options.timeout = 17;  // 0.5 s, three times: the state changes before that
  Endpoint a(options), b(options);
  a.connect(b.address());
  a.receive(1, 8);
  a.send(IBV_WR_RDMA_WRITE, 2, 8);
  a.to(IBV_QPS_RESET);
  const bool any = a.completion_within(std::chrono::seconds(2)).has_value();
  return any ? "completions" : "no completion";
}

std::string connected_again() {
  Pair pair(patient());
  for (Endpoint* one : {&pair.a, &pair.b}) one->to(IBV_QPS_RESET);
  pair.a.connect(pair.b.address());
  pair.b.connect(pair.a.address());
  pair.a.fill(0, 3000, 2);
  pair.a.send(IBV_WR_RDMA_WRITE, 1, 3000);
  return next(pair.a) + (pair.b.filled(0, 3000, 2) ? ", bytes arrived" : ", bytes did not arrive");
}

}  // namespace

void add_state_cases(std::vector<EdgeCase>* cases) {
  const auto add = [&](std::string name, std::function<std::string()> run) {
    cases->push_back({std::move(name), std::move(run)});
  };
  const auto lacking = [&](const char* to, ibv_qp_state from, ibv_qp_state state, int mask, int bit,
                           const char* what) {
    add(std::string("to ") + to + " without " + what,
        [=] { return change(from, state, mask & ~bit); });
  };
  lacking("INIT", IBV_QPS_RESET, IBV_QPS_INIT, kToInit, IBV_QP_PORT, "port");
  lacking("INIT", IBV_QPS_RESET, IBV_QPS_INIT, kToInit, IBV_QP_ACCESS_FLAGS, "access flags");
  lacking("INIT", IBV_QPS_RESET, IBV_QPS_INIT, kToInit, IBV_QP_PKEY_INDEX, "pkey index");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_AV, "address");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_PATH_MTU, "MTU");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_DEST_QPN, "destination");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_RQ_PSN, "PSN");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_MAX_DEST_RD_ATOMIC, "reads");
  lacking("RTR", IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, IBV_QP_MIN_RNR_TIMER, "RNR timer");
  lacking("RTS", IBV_QPS_RTR, IBV_QPS_RTS, kToRts, IBV_QP_TIMEOUT, "timeout");
  lacking("RTS", IBV_QPS_RTR, IBV_QPS_RTS, kToRts, IBV_QP_RETRY_CNT, "retries");
  lacking("RTS", IBV_QPS_RTR, IBV_QPS_RTS, kToRts, IBV_QP_RNR_RETRY, "RNR retries");
  lacking("RTS", IBV_QPS_RTR, IBV_QPS_RTS, kToRts, IBV_QP_SQ_PSN, "PSN");
  lacking("RTS", IBV_QPS_RTR, IBV_QPS_RTS, kToRts, IBV_QP_MAX_QP_RD_ATOMIC, "reads");
  add("to INIT with an attribute of RTR",
      [] { return change(IBV_QPS_RESET, IBV_QPS_INIT, kToInit | IBV_QP_PATH_MTU); });
  add("to ERR with attributes",
      [] { return change(IBV_QPS_RTS, IBV_QPS_ERR, IBV_QP_STATE | IBV_QP_PORT); });
  add("RESET to RTR", [] { return change(IBV_QPS_RESET, IBV_QPS_RTR, kToRtr); });
  add("RESET to RTS", [] { return change(IBV_QPS_RESET, IBV_QPS_RTS, kToRts); });
  add("INIT to RTS", [] { return change(IBV_QPS_INIT, IBV_QPS_RTS, kToRts); });
  add("RTR to INIT", [] { return change(IBV_QPS_RTR, IBV_QPS_INIT, kToInit); });
  add("RTS to RTR", [] { return change(IBV_QPS_RTS, IBV_QPS_RTR, kToRtr); });
  add("ERR to RTS", [] { return change(IBV_QPS_ERR, IBV_QPS_RTS, kToRts); });
  add("INIT to INIT", [] { return change(IBV_QPS_INIT, IBV_QPS_INIT, kToInit); });
  for (const ibv_qp_state from : {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    add(words(from) + " to ERR", [=] { return change(from, IBV_QPS_ERR, IBV_QP_STATE); });
    add(words(from) + " to RESET", [=] { return change(from, IBV_QPS_RESET, IBV_QP_STATE); });
  }
  add("ERR to RESET", [] { return change(IBV_QPS_ERR, IBV_QPS_RESET, IBV_QP_STATE); });
  add("RTS to RTS with a new RNR timer",
      [] { return change(IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER); });

  add("to INIT with port 2", [] {
    return with(IBV_QPS_RESET, IBV_QPS_INIT, kToInit, [](auto& attr) { attr.port_num = 2; });
  });
  add("to RTR with a GID index beyond the table", [] {
    return with(IBV_QPS_INIT, IBV_QPS_RTR, kToRtr,
                [](auto& attr) { attr.ah_attr.grh.sgid_index = 255; });
  });
  add("to RTR with MTU 4096 on a port of 4096", [] {
    return with(IBV_QPS_INIT, IBV_QPS_RTR, kToRtr,
                [](auto& attr) { attr.path_mtu = IBV_MTU_4096; });
  });
  add("to RTR with an MTU that is none", [] {
    return with(IBV_QPS_INIT, IBV_QPS_RTR, kToRtr,
                [](auto& attr) { attr.path_mtu = static_cast<ibv_mtu>(6); });
  });
  add("to RTR without a GID", [] {
    return with(IBV_QPS_INIT, IBV_QPS_RTR, kToRtr, [](auto& attr) { attr.ah_attr.is_global = 0; });
  });

  add("send posted in RESET", [] { return post_send_in(IBV_QPS_RESET); });
  add("send posted in INIT", [] { return post_send_in(IBV_QPS_INIT); });
  add("send posted in RTR", [] { return post_send_in(IBV_QPS_RTR); });
  add("send posted in ERR", [] { return post_send_in(IBV_QPS_ERR); });
  add("receive posted in RESET", [] { return post_receive_in(IBV_QPS_RESET); });
  add("receive posted in INIT", [] { return post_receive_in(IBV_QPS_INIT); });
  add("receive posted in ERR", [] { return post_receive_in(IBV_QPS_ERR); });
  add("requests of a queue pair moved to ERR", flush_order);
  add("requests after a failed one", flush_after_error);
  add("requests of a queue pair moved to RESET", reset_forgets);
  add("queue pairs reset and connected again", connected_again);
}

}  // namespace libcomm::test
