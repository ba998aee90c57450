// Topology: the machine as a value. What is where, and how far apart.
//
// Made from hwloc (which also reads HWLOC_XMLFILE and HWLOC_SYNTHETIC, so that machines we do not have
// can be planned for), immutable afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

// How far apart two devices are; larger is farther. A device is a core, a network interface, a GPU, ...
enum class PathClass : int {
  kSelf,        // the same device
  kCache,       // share a cache beyond their own
  kNuma,        // the same NUMA node
  kPcieSwitch,  // the same PCIe switch
  kRoot,        // the same root complex (host bridge)
  kSocket,      // the same package, other NUMA node or bridge
  kSystem,      // across the processors' link
  kNetwork,     // another host
};
const char* name_of(PathClass path);

enum class DeviceKind : int { kCore, kNetwork, kGpu, kStorage, kOther };

struct Device {
  int id = -1;  // index in Topology::devices()
  DeviceKind kind = DeviceKind::kOther;
  std::string name;     // "core 3", "eth0"
  std::string address;  // PCI address "0000:81:00.0", or empty
  int os_index = -1;    // of a core: its first hardware thread
  int numa_node = -1;
  int package = -1;
  double gbytes_per_second = 0;  // link speed where known, else 0
};

struct Path {
  PathClass path = PathClass::kSystem;
  double latency_us = 0;            // model constants, see docs/architecture.md
  double gbytes_per_second = 0;
};

class Topology {
 public:
  // This machine, or the one that hwloc's environment variables name. kSystem when hwloc fails.
  static Result<Topology> detect();

  const std::vector<Device>& devices() const;
  Path path(int device_a, int device_b) const;
  // -1 when there is none of that name.
  int find_device(DeviceKind kind, std::string_view name) const;

  int cores() const;
  int numa_nodes() const;
  int packages() const;
  // Cores that this process may use (its cpuset), as device ids.
  std::vector<int> usable_cores() const;

  std::string to_tree() const;  // for people
  std::string to_json() const;

 private:
  friend class TopologyBuilder;
  struct Data;
  std::shared_ptr<const Data> data_;
};

// Where a rank runs, as all ranks have exchanged it.
struct RankPlace {
  int host = 0;   // dense index
  int core = -1;  // device id of the core it is bound to; -1: not bound
  int numa_node = -1;
  int package = -1;
};

// Ranks in ring order: hosts stay together in order of their lowest rank; inside a host ranks of a
// package, then of a NUMA node, then by core stay together. A pure function; ties by rank.
std::vector<int> ring_order(std::span<const RankPlace> places);

// The core for local rank `local_rank` of `local_nranks` under COMM_CPU_AFFINITY: "auto" spreads over
// packages' NUMA nodes in blocks, one core each while they last; a list ("0-3,8") is taken in turn.
// "" gives -1 (no binding). kInvalidArgument names a core that the process may not use.
Result<int> core_for_rank(const Topology& topology, const std::string& affinity, int local_rank,
                          int local_nranks);
// Binds the calling thread to a core of `topology`.
Status bind_thread(const Topology& topology, int core_device);

}  // namespace libcomm
