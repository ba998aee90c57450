#include "transports/rdma/nearest.h"

#include <algorithm>

namespace libcomm::rdma {
namespace {

// All cores of a node are as far from everything else.
int core_of(const Topology& topology, int numa_node) {
  for (const Device& device : topology.devices())
    if (device.kind == DeviceKind::kCore && device.numa_node == numa_node) return device.id;
  return -1;
}

// Those that no other is nearer than.
std::vector<size_t> nearest_in(const Topology& topology, int numa_node,
                               std::span<const PortInfo> ports) {
  std::vector<PathClass> far(ports.size(), PathClass::kNuma);
  if (numa_node >= 0)
    for (size_t i = 0; i < ports.size(); ++i) far[i] = distance_from(topology, numa_node, ports[i]);
  std::vector<size_t> chosen;
  for (size_t i = 0; i < ports.size(); ++i)
    if (far[i] == *std::min_element(far.begin(), far.end())) chosen.push_back(i);
  return chosen;
}

}  // namespace

int device_of(const Topology& topology, const PortInfo& port) {
  const int named = topology.find_device(DeviceKind::kNetwork, port.device);
  if (named >= 0 || port.pci.empty()) return named;
  for (const Device& device : topology.devices())
    if (device.kind == DeviceKind::kNetwork && device.address == port.pci) return device.id;
  return -1;
}

PathClass distance_from(const Topology& topology, int numa_node, const PortInfo& port) {
  int there = device_of(topology, port);
  if (there < 0) {
    if (port.numa_node < 0 || port.numa_node == numa_node) return PathClass::kNuma;
    there = core_of(topology, port.numa_node);
  }
  return std::max(PathClass::kNuma, topology.path(core_of(topology, numa_node), there).path);
}

std::vector<size_t> nearest(const Topology& topology, int numa_node,
                            std::span<const PortInfo> ports) {
  std::vector<size_t> chosen = nearest_in(topology, numa_node, ports);
  for (const size_t i : nearest_in(topology.without_file(), numa_node, ports))
    if (!topology.is_placed_by_file(device_of(topology, ports[i])) &&
        std::find(chosen.begin(), chosen.end(), i) == chosen.end())
      chosen.push_back(i);
  return chosen;
}

}  // namespace libcomm::rdma
