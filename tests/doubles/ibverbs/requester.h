// The sending half of a queue pair: posts, packets, acknowledgements, retries.
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

int post_send(Qp& qp, ibv_send_wr* request, ibv_send_wr** bad);
// Sends what the window, fences and timers allow.
void pump(Qp& qp);
// A packet that answers one of this queue pair's.
void answered(Qp& qp, Packet& packet);
// A packet of this queue pair was dropped: it waits its timeout, then sends again or fails.
void lost(Qp& qp, uint32_t wave);
// Ends the oldest request with `status`, the others flushed.
void fail_oldest(Qp& qp, ibv_wc_status status);
// Both queues end with flush errors; the state is ERR.
void enter_error(Qp& qp);
// The queues are emptied without completions.
void forget_requests(Qp& qp);

}  // namespace rdma_double
