#include "tests/doubles/endpoint.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace libcomm::test {
namespace {

constexpr std::chrono::seconds kPatience{60};

void must(bool works, const char* what) {
  if (!works) throw std::runtime_error(std::string("cannot ") + what + ": " + std::strerror(errno));
}

bool is_ipv4(const ibv_gid& gid) {
  static constexpr uint8_t kPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kPrefix, sizeof(kPrefix)) == 0;
}

}  // namespace

Endpoint::Endpoint(const EndpointOptions& given) : options(given), buffer(given.buffer_bytes) {
  int count = 0;
  ibv_device** devices = ibv_get_device_list(&count);
  must(devices != nullptr && count > options.device, "find the device");
  context = ibv_open_device(devices[options.device]);
  ibv_free_device_list(devices);
  must(context != nullptr, "open the device");
  pd = ibv_alloc_pd(context);
  must(pd != nullptr, "allocate a protection domain");
  if (options.with_channel) {
    channel = ibv_create_comp_channel(context);
    must(channel != nullptr, "create a completion channel");
  }
  cq = ibv_create_cq(context, options.completions, this, channel, 0);
  must(cq != nullptr, "create a completion queue");
  make_queue_pair();
  if (options.gid_index < 0) options.gid_index = find_gid();
}

Endpoint::Endpoint(const Endpoint& other)
    : options(other.options),
      context(other.context),
      pd(other.pd),
      channel(other.channel),
      cq(other.cq),
      buffer(other.buffer.size()),
      beside_(true) {
  make_queue_pair();
}

void Endpoint::make_queue_pair() {
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = cq;
  init.cap = {options.send_slots, options.receive_slots, 4, 4, options.max_inline};
  init.qp_type = IBV_QPT_RC;
  init.sq_sig_all = options.signal_all;
  qp = ibv_create_qp(pd, &init);
  must(qp != nullptr, "create a queue pair");
  cap = init.cap;
  mr = ibv_reg_mr(pd, buffer.data(), buffer.size(), options.buffer_access);
  must(mr != nullptr, "register memory");
}

Endpoint::~Endpoint() {
  destroy_queue_pair();
  if (mr != nullptr) ibv_dereg_mr(mr);
  if (beside_) return;
  ibv_destroy_cq(cq);
  if (channel != nullptr) ibv_destroy_comp_channel(channel);
  ibv_dealloc_pd(pd);
  ibv_close_device(context);
}

int Endpoint::find_gid() const {
  ibv_gid_entry entry;
  for (uint32_t index = 0; ibv_query_gid_ex(context, 1, index, &entry, 0) != EINVAL; ++index) {
    if (entry.gid_type == IBV_GID_TYPE_ROCE_V2 && is_ipv4(entry.gid))
      return static_cast<int>(index);
    if (index == 255) break;
  }
  throw std::runtime_error("the device has no GID of RoCE v2 and IPv4");
}

void Endpoint::destroy_queue_pair() {
  if (qp != nullptr) must(ibv_destroy_qp(qp) == 0, "destroy the queue pair");
  qp = nullptr;
}

Address Endpoint::address() const {
  Address own;
  own.queue_pair = qp->qp_num;
  own.psn = options.psn;
  must(ibv_query_gid(context, 1, options.gid_index, &own.gid) == 0, "query the GID");
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
  attr.ah_attr.grh.sgid_index = static_cast<uint8_t>(options.gid_index);
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
  must(to_init() == 0, "go to INIT");
  must(to_receive(other) == 0, "go to RTR");
  must(to_send() == 0, "go to RTS");
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

ibv_qp_state Endpoint::state() const {
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  must(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) == 0, "query the queue pair");
  return attr.qp_state;
}

std::optional<ibv_wc> Endpoint::completion_within(std::chrono::milliseconds time) {
  ibv_wc wc{};
  const auto end = std::chrono::steady_clock::now() + time;
  while (ibv_poll_cq(cq, 1, &wc) == 0) {
    if (std::chrono::steady_clock::now() > end) return {};
    std::this_thread::yield();
  }
  return wc;
}

ibv_wc Endpoint::completion() {
  const std::optional<ibv_wc> wc = completion_within(kPatience);
  must(wc.has_value(), "see a completion");
  return *wc;
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
