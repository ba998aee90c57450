#include "tests/doubles/ibverbs/states.h"

#include <cerrno>
#include <cstring>

#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

struct Change {
  ibv_qp_state from, to;
  int needs, takes;
};

constexpr Change kChanges[] = {
    {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, 0},
    {IBV_QPS_INIT, IBV_QPS_INIT, 0, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS},
    {IBV_QPS_INIT, IBV_QPS_RTR,
     IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
         IBV_QP_MIN_RNR_TIMER,
     IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX},
    {IBV_QPS_RTR, IBV_QPS_RTS,
     IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
     IBV_QP_CUR_STATE | IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER |
         IBV_QP_PATH_MIG_STATE},
    {IBV_QPS_RTS, IBV_QPS_RTS, 0,
     IBV_QP_CUR_STATE | IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER |
         IBV_QP_PATH_MIG_STATE},
    {IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPS_SQD, IBV_QPS_RTS, 0,
     IBV_QP_CUR_STATE | IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER |
         IBV_QP_PATH_MIG_STATE},
};

constexpr struct {
  int bit;
  const char* name;
} kBits[] = {{IBV_QP_ACCESS_FLAGS, "ACCESS_FLAGS"},
             {IBV_QP_PKEY_INDEX, "PKEY_INDEX"},
             {IBV_QP_PORT, "PORT"},
             {IBV_QP_QKEY, "QKEY"},
             {IBV_QP_AV, "AV"},
             {IBV_QP_PATH_MTU, "PATH_MTU"},
             {IBV_QP_TIMEOUT, "TIMEOUT"},
             {IBV_QP_RETRY_CNT, "RETRY_CNT"},
             {IBV_QP_RNR_RETRY, "RNR_RETRY"},
             {IBV_QP_RQ_PSN, "RQ_PSN"},
             {IBV_QP_MAX_QP_RD_ATOMIC, "MAX_QP_RD_ATOMIC"},
             {IBV_QP_MIN_RNR_TIMER, "MIN_RNR_TIMER"},
             {IBV_QP_SQ_PSN, "SQ_PSN"},
             {IBV_QP_MAX_DEST_RD_ATOMIC, "MAX_DEST_RD_ATOMIC"},
             {IBV_QP_DEST_QPN, "DEST_QPN"}};

std::string names(int mask) {
  std::string list;
  for (const auto& [bit, name] : kBits)
    if ((mask & bit) != 0) list += std::string(list.empty() ? "" : " ") + name;
  return list.empty() ? text("0x%x", mask) : list;
}

int check_mask(const Qp& qp, ibv_qp_state to, int mask) {
  const int given = mask & ~IBV_QP_STATE;
  if (to == IBV_QPS_ERR && qp.state == IBV_QPS_RESET)
    return violation(EINVAL, "queue pair %u cannot go from RESET to ERR", qp.qp_num);
  if (to == IBV_QPS_ERR || to == IBV_QPS_RESET) {
    if ((given & ~IBV_QP_CUR_STATE) != 0)
      return violation(EINVAL, "queue pair %u to %s: attributes that do not belong there: %s",
                       qp.qp_num, state_name(to), names(given).c_str());
    return 0;
  }
  for (const Change& change : kChanges) {
    if (change.from != qp.state || change.to != to) continue;
    if (const int missing = change.needs & ~given; missing != 0)
      return violation(EINVAL, "queue pair %u from %s to %s: missing in the mask: %s", qp.qp_num,
                       state_name(qp.state), state_name(to), names(missing).c_str());
    if (const int odd = given & ~(change.needs | change.takes); odd != 0)
      return violation(EINVAL, "queue pair %u from %s to %s: does not belong there: %s", qp.qp_num,
                       state_name(qp.state), state_name(to), names(odd).c_str());
    return 0;
  }
  return violation(EINVAL, "queue pair %u cannot go from %s to %s", qp.qp_num, state_name(qp.state),
                   state_name(to));
}

bool empty(const ibv_gid& gid) {
  static constexpr ibv_gid kNone{};
  return std::memcmp(&gid, &kNone, sizeof(gid)) == 0;
}

// Values that come from a configuration: an error code, as the kernel's, whatever the strictness.
int check_path(Qp& qp, const ibv_qp_attr& attr) {
  const ibv_ah_attr& path = attr.ah_attr;
  if (path.port_num != qp.attr.port_num) return refuse(EINVAL);
  if (path.is_global == 0) return config().infiniband ? 0 : refuse(EINVAL);
  const std::vector<GidEntry>& table = qp.device().at(qp.attr.port_num).gids;
  if (path.grh.sgid_index >= table.size() || empty(table[path.grh.sgid_index].gid))
    return refuse(ENODATA);
  return 0;
}

int check_values(Qp& qp, const ibv_qp_attr& attr, int mask) {
  const Config& c = config();
  if ((mask & IBV_QP_PORT) != 0 && (attr.port_num < 1 || attr.port_num > c.ports))
    return refuse(EINVAL);
  if ((mask & IBV_QP_PKEY_INDEX) != 0 && attr.pkey_index != 0) return refuse(EINVAL);
  if ((mask & IBV_QP_PATH_MTU) != 0 && (attr.path_mtu < IBV_MTU_256 || attr.path_mtu > c.mtu))
    return refuse(EINVAL);
  if ((mask & IBV_QP_AV) != 0) {
    if (const int code = check_path(qp, attr); code != 0) return code;
  }
  if ((mask & IBV_QP_DEST_QPN) != 0 && attr.dest_qp_num > kPsnMask) return refuse(EINVAL);
  if ((mask & IBV_QP_MIN_RNR_TIMER) != 0 && attr.min_rnr_timer > 31) return refuse(EINVAL);
  if ((mask & IBV_QP_TIMEOUT) != 0 && attr.timeout > 31) return refuse(EINVAL);
  if ((mask & IBV_QP_RETRY_CNT) != 0 && attr.retry_cnt > 7) return refuse(EINVAL);
  if ((mask & IBV_QP_RNR_RETRY) != 0 && attr.rnr_retry > 7) return refuse(EINVAL);
  if ((mask & IBV_QP_MAX_QP_RD_ATOMIC) != 0 && attr.max_rd_atomic > c.max_rd_atomic)
    return refuse(EINVAL);
  if ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) != 0 && attr.max_dest_rd_atomic > c.max_rd_atomic)
    return refuse(EINVAL);
  const bool wide = ((mask & IBV_QP_RQ_PSN) != 0 && attr.rq_psn > kPsnMask) ||
                    ((mask & IBV_QP_SQ_PSN) != 0 && attr.sq_psn > kPsnMask);
  if (wide)
    return violation(EINVAL, "queue pair %u: a PSN has 24 bits, got 0x%x", qp.qp_num,
                     (mask & IBV_QP_RQ_PSN) != 0 ? attr.rq_psn : attr.sq_psn);
  return 0;
}

void take(Qp& qp, const ibv_qp_attr& attr, int mask) {
  ibv_qp_attr& own = qp.attr;
  constexpr uint64_t kRoomBelow = uint64_t{1} << 24;
  if ((mask & IBV_QP_PORT) != 0) own.port_num = attr.port_num;
  if ((mask & IBV_QP_PKEY_INDEX) != 0) own.pkey_index = attr.pkey_index;
  if ((mask & IBV_QP_ACCESS_FLAGS) != 0) own.qp_access_flags = attr.qp_access_flags;
  if ((mask & IBV_QP_AV) != 0) own.ah_attr = attr.ah_attr;
  if ((mask & IBV_QP_PATH_MTU) != 0) own.path_mtu = attr.path_mtu;
  if ((mask & IBV_QP_DEST_QPN) != 0) own.dest_qp_num = attr.dest_qp_num;
  if ((mask & IBV_QP_RQ_PSN) != 0) {
    own.rq_psn = attr.rq_psn;
    qp.expected_psn = qp.initial_psn = kRoomBelow + attr.rq_psn;
  }
  if ((mask & IBV_QP_SQ_PSN) != 0) {
    own.sq_psn = attr.sq_psn;
    qp.post_psn = qp.sent_psn = qp.furthest_psn = qp.acked_psn = kRoomBelow + attr.sq_psn;
  }
  if ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) != 0) own.max_dest_rd_atomic = attr.max_dest_rd_atomic;
  if ((mask & IBV_QP_MAX_QP_RD_ATOMIC) != 0) own.max_rd_atomic = attr.max_rd_atomic;
  if ((mask & IBV_QP_MIN_RNR_TIMER) != 0) own.min_rnr_timer = attr.min_rnr_timer;
  if ((mask & IBV_QP_TIMEOUT) != 0) own.timeout = attr.timeout;
  if ((mask & IBV_QP_RETRY_CNT) != 0) own.retry_cnt = attr.retry_cnt;
  if ((mask & IBV_QP_RNR_RETRY) != 0) own.rnr_retry = attr.rnr_retry;
}

}  // namespace

const char* state_name(ibv_qp_state state) {
  static constexpr const char* kNames[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
  return static_cast<size_t>(state) < std::size(kNames) ? kNames[state] : "no state";
}

int modify(Qp& qp, const ibv_qp_attr& attr, int mask) {
  if ((mask & IBV_QP_CUR_STATE) != 0 && attr.cur_qp_state != qp.state)
    return violation(EINVAL, "queue pair %u is in %s, not in %s as cur_qp_state says", qp.qp_num,
                     state_name(qp.state), state_name(attr.cur_qp_state));
  const ibv_qp_state to = (mask & IBV_QP_STATE) != 0 ? attr.qp_state : qp.state;
  int code = check_mask(qp, to, mask);
  if (code == 0) code = check_values(qp, attr, mask);
  if (code != 0) return code;
  take(qp, attr, mask);
  if (to == IBV_QPS_ERR) {
    enter_error(qp);
    return 0;
  }
  if (to == IBV_QPS_RESET) {
    forget_requests(qp);
    qp.attr = {};
    qp.established = false;
  }
  qp.state = to;
  qp.attr.qp_state = to;
  if (to == IBV_QPS_RTS) pump(qp);
  return 0;
}

void query(const Qp& qp, ibv_qp_attr* attr, ibv_qp_init_attr* init) {
  *attr = qp.attr;
  attr->qp_state = attr->cur_qp_state = qp.state;
  attr->cap = qp.cap;
  attr->sq_psn = static_cast<uint32_t>(qp.sent_psn) & kPsnMask;
  attr->rq_psn = static_cast<uint32_t>(qp.expected_psn) & kPsnMask;
  attr->path_mig_state = IBV_MIG_MIGRATED;
  if (init == nullptr) return;
  *init = {};
  init->qp_context = qp.qp_context;
  init->send_cq = qp.send_cq;
  init->recv_cq = qp.recv_cq;
  init->cap = qp.cap;
  init->qp_type = qp.qp_type;
  init->sq_sig_all = qp.signal_all;
}

}  // namespace rdma_double
