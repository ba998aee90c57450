// A machine as hwloc reads it, with what a topology file in NCCL's format adds.
#pragma once

#include "src/base/status.h"
#include "src/topology/topology.h"
#include "src/topology/topology_file.h"

namespace libcomm {

// The machine that `description` is, or adds to; without, or to: that of HWLOC_XMLFILE or
// HWLOC_SYNTHETIC, else this machine. Its usable cores are those that hwloc says the process may
// use, whatever the calling thread's affinity. For one thread at a time. `file` is for messages.
// Errors: as Topology::detect().
Result<Topology> read_machine(const TopologyDescription& description, const TopologyFile& file);

}  // namespace libcomm
