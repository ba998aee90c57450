// The faults that the environment asks for (config.h, README.md).
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

// Whether this request ends with `status` instead of being sent.
bool fails(const Qp& qp, const SendRequest& request, ibv_wc_status* status);
// Whether this packet is lost on its way.
bool loses(Qp& qp, const Header& header);
// When a packet that arrives now is executed: after delay and jitter, and at the device's rate.
int64_t due_ns(Qp& qp, const Header& header, int64_t now);

}  // namespace rdma_double
