// The calls that verbs.h makes through tables in the context rather than by name.
#pragma once

#include <infiniband/verbs.h>

namespace rdma_double {

int poll_cq(ibv_cq* cq, int entries, ibv_wc* out);
int request_notification(ibv_cq* cq, int solicited_only);
int post_send_call(ibv_qp* qp, ibv_send_wr* request, ibv_send_wr** bad);
int post_receive_call(ibv_qp* qp, ibv_recv_wr* request, ibv_recv_wr** bad);

inline bool is_of_queue_pair(ibv_event_type type) {
  return type == IBV_EVENT_QP_FATAL || type == IBV_EVENT_QP_REQ_ERR ||
         type == IBV_EVENT_QP_ACCESS_ERR || type == IBV_EVENT_COMM_EST ||
         type == IBV_EVENT_SQ_DRAINED || type == IBV_EVENT_QP_LAST_WQE_REACHED;
}

}  // namespace rdma_double
