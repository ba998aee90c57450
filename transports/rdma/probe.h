// Probe: does a port really move bytes? It writes a few to itself, through the network stack of the
// device, before any rank is promised that it works.
#pragma once

#include "transports/rdma/nic.h"

namespace libcomm::rdma {

// kSystem says what did not work. Blocks for at most two seconds.
Status probe_loopback(const std::shared_ptr<Nic>& nic, const Options& options);

}  // namespace libcomm::rdma
