// Ports: what RDMA finds on this host, one by one, for comm-info and comm-check.
#pragma once

#include <string>
#include <vector>

#include "src/base/knobs.h"
#include "transports/rdma/nic.h"

namespace libcomm::rdma {

struct PortFinding {
  std::string name;  // "mlx5_0:1"
  bool usable = false;
  PortInfo info;       // when usable
  std::string reason;  // when not
};

// Opens every port that COMM_IB_HCA allows and lets it write to itself. kSystem when there is no
// libibverbs or no such port; kInvalidArgument when a knob cannot be read.
Result<std::vector<PortFinding>> find_ports(const Knobs& knobs);

}  // namespace libcomm::rdma
