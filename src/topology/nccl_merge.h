// NcclMerge: puts PCI devices where a file in NCCL's format says.
//
// Cores, packages and NUMA nodes stay as hwloc found them. A device or bridge that the file names
// leaves its place in hwloc's tree; what is below such a bridge and not named itself goes with it.
// Each <cpu> is a host bridge at its NUMA node, as in NCCL, which knows no other distance between
// devices of one <cpu> than the bridges that the file has between them. Devices of the file alone
// are added behind hwloc's, so that these keep their ids. NVLinks are between GPUs of the file and
// of the machine alike.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "src/topology/nccl_file.h"
#include "src/topology/topology_data.h"

namespace libcomm {

class NcclMerge {
 public:
  NcclMerge(const NcclFile& file, Topology::Data* data) : file_(file), data_(*data) {}
  void run();

 private:
  struct Place {
    int numa_node = -1;
    int package = -1;
    bool is_known = false;       // the machine has that NUMA node
    TreeNode* parent = nullptr;  // in data_.root
    size_t position = 0;         // among its children
  };

  void note_names(const std::vector<NcclPci>& pcis);
  void note_names(const std::vector<NcclNet>& nets, const std::string& key);
  // The key under which the file places what `node` stands for; empty when it does not.
  std::string key_of(const TreeNode& node) const;
  void take_named(TreeNode& node);
  std::vector<TreeNode> taken(const std::string& key);

  TreeNode host_bridge_of(const NcclCpu& cpu, size_t index);
  void add_pci(const NcclPci& pci, TreeNode& parent);
  void add_devices(const NcclPci& pci, TreeNode& parent);
  void add_net(const NcclNet& net, TreeNode& parent);
  TreeNode new_device(DeviceKind kind, std::string name, const std::string& address, double speed);
  void set_speeds(const TreeNode& node, const NcclPci& pci);

  Place place_of(int numa_node);
  void attach(const TreeNode& node, Attachment at, const Place& place);

  Device& device(const TreeNode& node) { return data_.devices[static_cast<size_t>(node.device)]; }
  const Device& device(const TreeNode& node) const {
    return data_.devices[static_cast<size_t>(node.device)];
  }

  const NcclFile& file_;
  Topology::Data& data_;
  std::map<std::string, bool> named_;  // addresses of the file; whether it is a bridge
  std::map<std::string, std::string>
      net_places_;  // names of interfaces and the key of their place, if known
  std::map<std::string, std::vector<TreeNode>> taken_;
  std::set<std::string> interfaces_;  // names of those that the machine or the file has so far
  std::set<int> added_nodes_;         // NUMA nodes of the file alone
  uint64_t next_id_ = kFileIds;
};

}  // namespace libcomm
