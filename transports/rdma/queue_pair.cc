#include "transports/rdma/queue_pair.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

// A grant, or a header with a tiny segment, without a read of host memory by the device.
constexpr uint32_t kInlineWanted = 128;

Result<ibv_qp*> create_qp(const Nic& nic, ibv_cq* cq, const QueueDepth& depth,
                          size_t* inline_bytes) {
  ibv_qp_init_attr init{};
  for (const uint32_t wanted : {kInlineWanted, 0u}) {
    init = {};
    init.send_cq = cq;
    init.recv_cq = cq;
    init.cap.max_send_wr = static_cast<uint32_t>(depth.send);
    init.cap.max_recv_wr = static_cast<uint32_t>(depth.recv);
    init.cap.max_send_sge = 1;
    init.cap.max_recv_sge = 1;
    init.cap.max_inline_data = wanted;
    init.qp_type = IBV_QPT_RC;
    errno = 0;
    if (ibv_qp* qp = nic.verbs()->create_qp(nic.pd(), &init); qp != nullptr) {
      *inline_bytes = init.cap.max_inline_data;
      return qp;
    }
  }
  const int err = errno == 0 ? ENOMEM : errno;
  return system_error(
      err, fmt::format("creating a queue pair on {} (the device has {} of {} work requests: use "
                       "fewer COMM_IB_QPS_PER_CONNECTION or lanes)",
                       nic.info().name(), nic.info().max_qp, nic.info().max_qp_wr));
}

}  // namespace

QueuePair::QueuePair(std::shared_ptr<Nic> nic, Qp qp, const QueueDepth& depth, int index,
                     uint32_t epoch)
    : nic_(std::move(nic)), qp_(std::move(qp)), depth_(depth), index_(index), epoch_(epoch) {
  std::random_device random;
  first_psn_ = random() & 0xffffff;
}

// No event of it comes any more when it is destroyed.
QueuePair::~QueuePair() {
  const uint32_t number = qp_->qp_num;
  qp_.reset();
  (void)nic_->take_broken(number);
}

Result<std::unique_ptr<QueuePair>> QueuePair::create(std::shared_ptr<Nic> nic, ibv_cq* cq,
                                                     const QueueDepth& depth, int index,
                                                     uint32_t epoch, const Options& options,
                                                     bool readable) {
  size_t inline_bytes = 0;
  COMM_ASSIGN(ibv_qp * raw, create_qp(*nic, cq, depth, &inline_bytes));
  Qp qp(raw, {nic->verbs()});
  std::unique_ptr<QueuePair> pair(
      new QueuePair(std::move(nic), std::move(qp), depth, index, epoch));
  pair->inline_bytes_ = inline_bytes;
  COMM_TRY(pair->to_init(options, readable));
  COMM_TRY(pair->post_receives(depth.recv));
  return pair;
}

Status QueuePair::to_init(const Options& options, bool readable) {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.pkey_index = static_cast<uint16_t>(options.pkey_index);
  attributes.port_num = static_cast<uint8_t>(nic_->info().port);
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (readable) attributes.qp_access_flags |= IBV_ACCESS_REMOTE_READ;
  const int err = nic_->verbs()->modify_qp(
      qp_.get(), &attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (err != 0)
    return system_error(err, fmt::format("a queue pair on {} to INIT (COMM_IB_PKEY={})",
                                         nic_->info().name(), options.pkey_index));
  return Status::ok();
}

void QueuePair::describe_ece(RailWire* rail, const Options& options) const {
  const Verbs& verbs = *nic_->verbs();
  ibv_ece ece{};
  if (!options.ece || verbs.query_ece == nullptr || verbs.set_ece == nullptr) return;
  if (verbs.query_ece(qp_.get(), &ece) != 0 || ece.vendor_id == 0) return;
  rail->ece_vendor = ece.vendor_id;
  rail->ece_options = ece.options;
  rail->ece_mask = ece.comp_mask | 0x80000000u;
}

Status QueuePair::connect(const RailWire& rail, const QpWire& peer, int traffic_class,
                          const Options& options) {
  const Verbs& verbs = *nic_->verbs();
  const PortInfo& info = nic_->info();
  if (options.ece && rail.ece_mask != 0 && verbs.set_ece != nullptr) {
    ibv_ece ece{rail.ece_vendor, rail.ece_options, rail.ece_mask & 0x7fffffffu};
    const int err = verbs.set_ece(qp_.get(), &ece);
    ece_agreed_ = err == 0;
    if (err != 0) log_info(Subsys::kNet, "{}: no ECE with this peer (errno {})", info.name(), err);
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = std::min(info.mtu, static_cast<ibv_mtu>(rail.mtu));
  attributes.dest_qp_num = peer.number;
  attributes.rq_psn = peer.first_psn;
  attributes.max_dest_rd_atomic = 1;
  attributes.min_rnr_timer = 12;
  ibv_ah_attr& path = attributes.ah_attr;
  path.port_num = static_cast<uint8_t>(info.port);
  path.sl = static_cast<uint8_t>(options.service_level);
  path.dlid = rail.lid;
  // InfiniBand needs the global header only between subnets; there the GIDs' prefixes differ.
  path.is_global =
      info.ethernet || rail.gid.global.subnet_prefix != info.gid.gid.global.subnet_prefix;
  if (path.is_global != 0) {
    path.grh.dgid = rail.gid;
    path.grh.sgid_index = static_cast<uint8_t>(info.gid.index);
    path.grh.hop_limit = 255;
    path.grh.traffic_class = static_cast<uint8_t>(traffic_class);
  }
  if (const int err =
          verbs.modify_qp(qp_.get(), &attributes,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                              IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
      err != 0) {
    return system_error(
        err,
        fmt::format("the route from {} ({}) to {} (is there one? see `ip route get`, or choose "
                    "the GID by COMM_IB_GID_INDEX)",
                    info.name(), to_text(info.gid.gid), to_text(rail.gid)));
  }
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.sq_psn = first_psn_;
  attributes.timeout = static_cast<uint8_t>(options.timeout);
  attributes.retry_cnt = static_cast<uint8_t>(options.retry_count);
  attributes.rnr_retry = 7;
  attributes.max_rd_atomic = 1;
  if (const int err =
          verbs.modify_qp(qp_.get(), &attributes,
                          IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                              IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
      err != 0)
    return system_error(err, fmt::format("a queue pair on {} to RTS", info.name()));
  return Status::ok();
}

std::string QueuePair::attributes() const {
  ibv_qp_attr now{};
  ibv_qp_init_attr init{};
  const int err = nic_->verbs()->query_qp(
      qp_.get(), &now,
      IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_PKEY_INDEX, &init);
  if (err != 0) return fmt::format("unknown (errno {})", err);
  return fmt::format(
      "MTU {}, timeout {}, retries {}, service level {}, traffic class {}, pkey {}{}",
      bytes_of(now.path_mtu), int{now.timeout}, int{now.retry_cnt}, int{now.ah_attr.sl},
      int{now.ah_attr.grh.traffic_class}, now.pkey_index, ece_agreed_ ? ", ECE agreed" : "");
}

void QueuePair::fail() {
  if (failed_) return;
  failed_ = true;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  (void)nic_->verbs()->modify_qp(qp_.get(), &attributes, IBV_QP_STATE);
}

Status QueuePair::post(std::span<ibv_send_wr> chain, bool signalled, uint64_t* sequence) {
  const int count = static_cast<int>(chain.size());
  if (count > send_room())
    return error(Code::kInternal, "{} work requests where the send queue has room for {}", count,
                 send_room());
  for (size_t i = 0; i < chain.size(); ++i) {
    const bool last = i + 1 == chain.size();
    const bool signal = (last && signalled) || ++unsignalled_ >= depth_.send / 4;
    if (signal) unsignalled_ = 0;
    chain[i].wr_id = WorkId{false, index_, epoch_, posted_ + i}.encode();
    if (signal) chain[i].send_flags |= IBV_SEND_SIGNALED;
    chain[i].next = last ? nullptr : &chain[i + 1];
  }
  ibv_send_wr* bad = nullptr;
  if (const int err = ibv_post_send(qp_.get(), chain.data(), &bad); err != 0)
    return system_error(err, fmt::format("ibv_post_send on {}", nic_->info().name()));
  posted_ += chain.size();
  *sequence = posted_ - 1;
  return Status::ok();
}

bool QueuePair::note_sent(uint64_t sequence) {
  if (sequence >= posted_) return false;
  reclaimed_ = std::max(reclaimed_, sequence + 1);
  return true;
}

Status QueuePair::post_receives(int count) {
  ibv_recv_wr chain[kReceivesAtOnce] = {};  // a write with immediate brings no bytes of its own
  for (ibv_recv_wr& receive : chain) {
    receive.wr_id = WorkId{true, index_, epoch_, 0}.encode();
    receive.next = &receive + 1;
  }
  while (count > 0) {
    const int now = std::min(count, kReceivesAtOnce);
    chain[now - 1].next = nullptr;
    ibv_recv_wr* bad = nullptr;
    if (const int err = ibv_post_recv(qp_.get(), chain, &bad); err != 0)
      return system_error(err, fmt::format("ibv_post_recv on {}", nic_->info().name()));
    receives_ += now;
    count -= now;
  }
  return Status::ok();
}

Status QueuePair::receive_again() {
  --receives_;
  if (++owed_ < kReceivesAtOnce || failed_) return Status::ok();
  owed_ = 0;
  return post_receives(kReceivesAtOnce);
}

}  // namespace libcomm::rdma
