// The receiving half of a queue pair: posted receives, and the execution of requests that arrive.
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

int post_receive(Qp& qp, ibv_recv_wr* request, ibv_recv_wr** bad);
// A request came in from the wire: delays and rates apply, then it is executed.
void arrived(Node& node, Packet packet);
// Executes what is due of the packets under way to `qp`.
void deliver_due(Qp& qp);
// A dropped request: its requester is told (see Kind::kLost).
void tell_lost(Node& node, const Header& request);
void flush_receives(Qp& qp);

}  // namespace rdma_double
