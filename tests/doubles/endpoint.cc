#include "tests/doubles/endpoint.h"

#include <unistd.h>

#include <cstdlib>

extern char** environ;

namespace libcomm::test {
namespace {

constexpr std::chrono::seconds kPatience{20};

void unset_all() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (text.starts_with("RDMA_DOUBLE_")) names.push_back(text.substr(0, text.find('=')));
  }
  for (const std::string& name : names) ::unsetenv(name.c_str());
}

}  // namespace

DoubleEnvironment::DoubleEnvironment() {
  unset_all();
  static int count = 0;
  set("FABRIC", "test" + std::to_string(::getpid()) + "-" + std::to_string(++count));
}

DoubleEnvironment::~DoubleEnvironment() { unset_all(); }

void DoubleEnvironment::set(const std::string& name, const std::string& value) {
  ::setenv(("RDMA_DOUBLE_" + name).c_str(), value.c_str(), 1);
}

Endpoint::Endpoint(const EndpointOptions& given) : options(given), buffer(given.buffer_bytes) {
  int count = 0;
  ibv_device** devices = ibv_get_device_list(&count);
  EXPECT_GT(count, options.device);
  context = ibv_open_device(devices[options.device]);
  ibv_free_device_list(devices);
  pd = ibv_alloc_pd(context);
  if (options.with_channel) channel = ibv_create_comp_channel(context);
  cq = ibv_create_cq(context, options.completions, this, channel, 0);
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = cq;
  init.cap = {options.send_slots, options.receive_slots, 4, 4, options.max_inline};
  init.qp_type = IBV_QPT_RC;
  init.sq_sig_all = options.signal_all;
  qp = ibv_create_qp(pd, &init);
  mr = ibv_reg_mr(pd, buffer.data(), buffer.size(), options.buffer_access);
  EXPECT_TRUE(cq != nullptr && qp != nullptr && mr != nullptr);
}

Endpoint::~Endpoint() {
  destroy_queue_pair();
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  EXPECT_EQ(ibv_destroy_cq(cq), 0);
  if (channel != nullptr) {
    EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
  }
  EXPECT_EQ(ibv_dealloc_pd(pd), 0);
  EXPECT_EQ(ibv_close_device(context), 0);
}

void Endpoint::destroy_queue_pair() {
  if (qp == nullptr) return;
  EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qp = nullptr;
}

Address Endpoint::address() const {
  Address own;
  own.queue_pair = qp->qp_num;
  own.psn = options.psn;
  EXPECT_EQ(ibv_query_gid(context, 1, options.gid_index, &own.gid), 0);
  own.buffer = reinterpret_cast<uint64_t>(buffer.data());
  own.rkey = mr->rkey;
  return own;
}

int Endpoint::to_init() {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  attr.qp_access_flags = options.queue_pair_access;
  return ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

int Endpoint::to_receive(const Address& other) {
  peer = other;
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = options.mtu;
  attr.dest_qp_num = peer.queue_pair;
  attr.rq_psn = peer.psn;
  attr.max_dest_rd_atomic = options.max_rd_atomic;
  attr.min_rnr_timer = options.receiver_timer;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = 1;
  attr.ah_attr.grh.dgid = peer.gid;
  attr.ah_attr.grh.sgid_index = options.gid_index;
  attr.ah_attr.grh.hop_limit = 64;
  return ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                           IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

int Endpoint::to_send() {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTS;
  attr.sq_psn = options.psn;
  attr.timeout = options.timeout;
  attr.retry_cnt = options.retry_count;
  attr.rnr_retry = options.receiver_retry;
  attr.max_rd_atomic = options.max_rd_atomic;
  return ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                           IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

int Endpoint::to(ibv_qp_state state) {
  ibv_qp_attr attr{};
  attr.qp_state = state;
  return ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

void Endpoint::connect(const Address& other) {
  EXPECT_EQ(to_init(), 0);
  EXPECT_EQ(to_receive(other), 0);
  EXPECT_EQ(to_send(), 0);
}

ibv_send_wr& Endpoint::request(ibv_wr_opcode opcode, uint64_t id, size_t bytes, size_t offset,
                               size_t remote_offset, unsigned flags) {
  piece_ = {reinterpret_cast<uint64_t>(buffer.data() + offset), static_cast<uint32_t>(bytes),
            mr->lkey};
  request_ = {};
  request_.wr_id = id;
  request_.sg_list = &piece_;
  request_.num_sge = bytes > 0 ? 1 : 0;
  request_.opcode = opcode;
  request_.send_flags = flags;
  request_.imm_data = static_cast<uint32_t>(id);
  request_.wr.rdma.remote_addr = peer.buffer + remote_offset;
  request_.wr.rdma.rkey = peer.rkey;
  return request_;
}

int Endpoint::post(ibv_send_wr& one) {
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &one, &bad);
}

int Endpoint::send(ibv_wr_opcode opcode, uint64_t id, size_t bytes, size_t offset,
                   size_t remote_offset, unsigned flags) {
  return post(request(opcode, id, bytes, offset, remote_offset, flags));
}

int Endpoint::receive(uint64_t id, size_t bytes, size_t offset) {
  ibv_sge piece = {reinterpret_cast<uint64_t>(buffer.data() + offset), static_cast<uint32_t>(bytes),
                   mr->lkey};
  ibv_recv_wr wr{};
  wr.wr_id = id;
  wr.sg_list = &piece;
  wr.num_sge = bytes > 0 ? 1 : 0;
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp, &wr, &bad);
}

ibv_wc Endpoint::completion() {
  ibv_wc wc{};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (ibv_poll_cq(cq, 1, &wc) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      ADD_FAILURE() << "no completion";
      wc.status = IBV_WC_GENERAL_ERR;
      break;
    }
    std::this_thread::yield();
  }
  return wc;
}

std::vector<ibv_wc> Endpoint::completions_now() {
  std::vector<ibv_wc> all;
  ibv_wc wc{};
  while (ibv_poll_cq(cq, 1, &wc) == 1) all.push_back(wc);
  return all;
}

void Endpoint::fill(size_t offset, size_t bytes, int seed) {
  for (size_t i = 0; i < bytes; ++i)
    buffer[offset + i] =
        static_cast<std::byte>((i * 31 + i / 251 + static_cast<size_t>(seed)) & 255);
}

bool Endpoint::filled(size_t offset, size_t bytes, int seed) const {
  for (size_t i = 0; i < bytes; ++i) {
    if (buffer[offset + i] !=
        static_cast<std::byte>((i * 31 + i / 251 + static_cast<size_t>(seed)) & 255))
      return false;
  }
  return true;
}

}  // namespace libcomm::test
