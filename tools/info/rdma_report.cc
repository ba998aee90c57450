// What RDMA finds on this machine, for comm-info.
#include <fmt/format.h>

#include "tools/info/machine_report.h"
#include "transports/rdma/ports.h"

namespace libcomm {

Finding find_rdma(const Knobs& knobs) {
  if (knobs.get_bool(Knob::kIbDisable))
    return {"rdma", false,
            fmt::format("disabled by COMM_IB_DISABLE=1 ({})", knobs.origin(Knob::kIbDisable))};
  const auto ports = rdma::find_ports(knobs);
  if (!ports) return {"rdma", false, ports.status().message()};
  Finding found{"rdma", false, ""};
  for (const rdma::PortFinding& port : *ports) {
    found.available = found.available || port.usable;
    found.detail += fmt::format(
        "{}{}", found.detail.empty() ? "" : "; ",
        port.usable ? port.info.to_text() : fmt::format("{} not: {}", port.name, port.reason));
  }
  return found;
}

}  // namespace libcomm
