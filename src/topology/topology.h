// Topology: the machine as a value. What is where, and how far apart.
//
// Made from hwloc (which also reads HWLOC_XMLFILE and HWLOC_SYNTHETIC, so that machines we do not
// have can be planned for), from the file that COMM_TOPO_FILE names and, for those who want it,
// from NVML; immutable afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"

namespace libcomm {

// How far apart two devices are; larger is farther. A device is a core, a network interface, a GPU,
// ...
enum class PathClass : int {
  kSelf,        // the same device
  kCache,       // share a cache beyond their own
  kNuma,        // the same NUMA node
  kNvlink,      // GPUs with NVLinks to each other or to the same NVSwitches
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
  std::string name;     // "core 3" (3 is os_index), "eth0", "gpu 0000:81:00.0"
  std::string address;  // PCI address "0000:81:00.0", or empty
  int os_index = -1;    // of a core: its first hardware thread
  int numa_node = -1;
  int package = -1;
  double gbytes_per_second = 0;  // link speed where known, else 0
};

struct Path {
  PathClass path = PathClass::kSystem;
  double latency_us = 0;  // model constants: path_model.h says where they come from
  double gbytes_per_second = 0;
};

// What COMM_TOPO_FILE names.
struct TopologyFile {
  std::string path;   // empty: there is none
  std::string label;  // for messages: "COMM_TOPO_FILE=/a.xml", with who else said so in brackets
  // False where NCCL_TOPO_FILE said so, which images of cloud machines set for all programs: one
  // that cannot be read is then passed over with a warning.
  bool required = true;

  static TopologyFile from(const Knobs& knobs);
};

class Topology {
 public:
  // This machine, or the one that HWLOC_XMLFILE or HWLOC_SYNTHETIC names. A file in hwloc's format
  // is such a machine too, and stronger than these; one in NCCL's format says where PCI devices of
  // the machine are, and which others it has. Cores that the process may not use are part of the
  // machine. kSystem when hwloc fails, or something named cannot be read; kInvalidArgument when the
  // file holds something else. A machine is read once per process: later calls of any thread share
  // it, unless the file or hwloc's variables have changed.
  static Result<Topology> detect(const TopologyFile& file);
  // The same with the NVLinks that NVML tells of, where the machine is this one and has GPUs of
  // NVIDIA. Those of a GPU for which a file in NCCL's format has some are the file's alone. NVML is
  // asked once per process too; what it does not tell stays unknown. It may have to start the GPUs:
  // for those that ask how far GPUs are apart.
  static Result<Topology> detect_with_nvlinks(const TopologyFile& file);

  // Cores first, in order of package, NUMA node and position; then the others in PCI order. The ids
  // are the same in all processes of a host, whatever their cpusets.
  const std::vector<Device>& devices() const;
  // Ids that are no device give kSystem. Two names of one PCI function are the same device.
  Path path(int device_a, int device_b) const;
  // The machine as hwloc alone sees it, without what a file in NCCL's format says. The ids are the
  // same.
  Topology without_file() const;
  // Whether such a file says at which of the machine's NUMA nodes the device is.
  bool is_placed_by_file(int device) const;
  // Whether the NVLinks of a GPU are known, even that it has none.
  bool knows_nvlinks(int device) const;
  // -1 when there is none of that name: virtual interfaces (lo, veth, bridges) are on no bus and no
  // devices.
  int find_device(DeviceKind kind, std::string_view name) const;

  int cores() const;
  int numa_nodes() const;
  int packages() const;
  // False for a machine that was loaded from a file or a description: nothing can be bound to it.
  bool is_this_machine() const;
  // Cores that this process might use at detect(), as device ids: its cgroup's cpuset and the
  // calling thread's affinity, not counting a bind_thread() of our own. All cores of a machine that
  // is not ours.
  std::vector<int> usable_cores() const;

  std::string to_tree() const;  // for people
  std::string to_json() const;

 private:
  friend class MachineMemory;
  friend class NcclMerge;
  friend class TopologyBuilder;
  friend class Placement;
  struct Data;
  static PathClass class_between(const Data& data, size_t a, size_t b);
  std::shared_ptr<const Data> data_;
};

// What the model says of a class alone, without knowing the two devices.
Path model_of(PathClass path);

// Where a rank runs, as all ranks have exchanged it.
struct RankPlace {
  int host = 0;   // dense index
  int core = -1;  // device id of the core it is bound to; -1: not bound
  int numa_node = -1;
  int package = -1;
};

// How far apart two ranks are, from exchanged facts alone, so that all ranks answer alike. Ranks of
// one host with unknown places are kSystem apart.
Path path_between(const RankPlace& a, const RankPlace& b);

// Ranks in ring order: hosts stay together in order of their lowest rank; inside a host ranks of a
// package, then of a NUMA node, then by core stay together. A pure function; ties by rank.
std::vector<int> ring_order(std::span<const RankPlace> places);

// The core (a device id) for local rank `local_rank` of `local_nranks` under COMM_CPU_AFFINITY.
// "auto" spreads the ranks evenly over the usable cores in order of package and NUMA node,
// neighbours beside each other, one core each while they last. A list such as "0-3,8" holds CPU
// numbers as taskset and lscpu show them (any hardware thread stands for its core) and is taken in
// turn. "" gives -1 (no binding). kInvalidArgument: text that is no list, CPUs that the process may
// not use (by number), or a local rank outside [0, local_nranks).
Result<int> core_for_rank(const Topology& topology, const std::string& affinity, int local_rank,
                          int local_nranks);
// Binds the calling thread to the usable hardware threads of a core. kInvalidArgument: no such
// core, or one that the process may not use. kInvalidUsage: the topology is not of this machine.
// kSystem: the kernel refused.
Status bind_thread(const Topology& topology, int core_device);

}  // namespace libcomm
