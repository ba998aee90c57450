// Machines that we do not have, for the topology tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "src/topology/topology.h"

namespace libcomm {

// With the knobs as the environment has them now.
inline Result<Topology> detect() {
  COMM_ASSIGN(const auto knobs, Knobs::load());
  return Topology::detect(TopologyFile::from(*knobs));
}

inline Topology machine(const char* variable, const std::string& value) {
  setenv(variable, value.c_str(), 1);
  auto topology = detect();
  unsetenv(variable);
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}

inline Topology synthetic(const std::string& description) {
  return machine("HWLOC_SYNTHETIC", description);
}

inline Topology from_file(const std::string& name) {
  return machine("HWLOC_XMLFILE", std::string(COMM_TEST_DATA "/") + name);
}

// Two packages of two NUMA nodes of four cores, two hardware threads each.
inline Topology two_sockets_four_nodes() { return synthetic("pack:2 numa:2 l3:1 core:4 pu:2"); }

// The place of a rank bound to `core`.
inline RankPlace place_on(const Topology& topology, int host, int core) {
  const Device& device = topology.devices().at(static_cast<size_t>(core));
  return {host, core, device.numa_node, device.package};
}

}  // namespace libcomm
