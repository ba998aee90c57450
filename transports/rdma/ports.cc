#include "transports/rdma/ports.h"

#include "transports/rdma/probe.h"

namespace libcomm::rdma {

Result<std::vector<PortFinding>> find_ports(const Knobs& knobs) {
  COMM_ASSIGN(const Options options, Options::from(knobs));
  COMM_ASSIGN(const auto verbs, Verbs::open());
  COMM_ASSIGN(const Survey found, survey(verbs, options));
  if (!found.unmatched.empty())
    return error(Code::kSystem, "COMM_IB_HCA={}: {}", knobs.get_string(Knob::kIbHca),
                 found.unmatched);
  std::vector<PortFinding> ports;
  for (const auto& nic : found.nics) {
    const Status works = probe_loopback(nic, options);
    ports.push_back({nic->info().name(), works.is_ok(), nic->info(), works.message()});
  }
  for (const auto& [name, reason] : found.left_out) ports.push_back({name, false, {}, reason});
  if (ports.empty()) return Status(Code::kSystem, "this host has no RDMA device");
  return ports;
}

}  // namespace libcomm::rdma
