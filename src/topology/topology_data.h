// What a Topology holds inside: plain values taken from hwloc, which is not kept.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/topology/topology.h"

namespace libcomm {

// Where a device is attached, for working out paths. Ids are hwloc's global ones, or, of what a
// file in NCCL's format places, numbers from kFileIds on; never 0.
inline constexpr uint64_t kFileIds = uint64_t{1} << 62;
struct Attachment {
  std::vector<int> threads;             // of a core: OS numbers of its hardware threads, ascending
  std::vector<uint64_t> shared_caches;  // of a core: caches that it shares with other cores
  std::vector<uint64_t> pci_bridges;    // of a PCI device: bridges above it below the host bridge
  uint64_t host_bridge = 0;             // of a PCI device
  // A file in NCCL's format says where it is, and, the second, at which of the machine's NUMA
  // nodes.
  bool in_file = false;
  bool at_known_node = false;
  bool is_nvidia = false;  // a GPU that hwloc found, of that vendor
  // NVLinks of a GPU, from such a file or NVML, if one of them tells: to other devices by their
  // ids, and to the NVSwitches, which join all GPUs that have links to them.
  bool nvlinks_known = false;
  double nvlink_gbs = 0;  // of each link in one direction; 0: not known
  std::map<int, int> nvlinks;
  int switch_links = 0;
};

// The machine as people see it: packages, memory, shared caches, bridges, and devices as leaves.
struct TreeNode {
  std::string type;     // "machine", "package", "numa", "cache", "group", "host_bridge",
                        // "pcie_bridge", "device"
  std::string name;     // "package 0", "L3 cache 1", "bridge 0000:80:01.0"
  uint64_t bytes = 0;   // size of memory or cache
  int device = -1;      // of a leaf
  int os_index = -1;    // of a package or a NUMA node
  std::string address;  // of a PCIe bridge: its PCI address
  std::vector<TreeNode> children;
};

struct Topology::Data {
  std::vector<Device> devices;
  std::vector<Attachment> attachments;  // as devices
  std::vector<int> usable_threads;      // OS numbers, ascending
  TreeNode root;
  std::string
      source;  // "this machine", "HWLOC_XMLFILE=...", "this machine, COMM_TOPO_FILE=...", ...
  bool is_this_machine = true;
  int cores = 0;
  int numa_nodes = 0;
  int packages = 0;
  // What hwloc alone sees, where a file in NCCL's format was laid over it; the ids are the same.
  std::shared_ptr<const Data> without_file;
};

}  // namespace libcomm
