// Nearest: which ports a rank uses, by the topology's path classes.
#pragma once

#include <span>
#include <vector>

#include "src/topology/topology.h"
#include "transports/rdma/nic.h"

namespace libcomm::rdma {

// The port's device in the topology: by its name, else by its PCI address; -1 when it is not there.
int device_of(const Topology& topology, const PortInfo& port);

// How far a port is from the host memory of a NUMA node: kNuma (its own), kSocket (another node of
// the package) or kSystem. A port of no place in particular, as software devices are, is at every
// node's own.
PathClass distance_from(const Topology& topology, int numa_node, const PortInfo& port);

// Which of them a rank on this node uses, by index, in their order: all that are equally near and
// nearer than the others; channels take these in turn. All when the node is not known (-1). A file
// in NCCL's format takes no port from a rank by what it says of others: behind those that are near
// come the ports that it does not place and that would be among the nearest without it.
std::vector<size_t> nearest(const Topology& topology, int numa_node,
                            std::span<const PortInfo> ports);

}  // namespace libcomm::rdma
