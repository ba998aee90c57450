// From hwloc's objects to our values. hwloc reads this machine, or the file of COMM_TOPO_FILE, or
// HWLOC_XMLFILE, or HWLOC_SYNTHETIC.
#include <hwloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <tuple>

#include "src/topology/cpu_list.h"
#include "src/topology/hwloc_machine.h"
#include "src/topology/nccl_merge.h"
#include "src/topology/topology_data.h"

namespace libcomm {
namespace {

constexpr unsigned short kNvidia = 0x10de;  // as a vendor of PCI devices

struct Destroy {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using HwlocTopology = std::unique_ptr<hwloc_topology, Destroy>;

std::vector<int> to_list(hwloc_const_bitmap_t set) {
  std::vector<int> list;
  if (set == nullptr) return list;
  // The bound also ends an infinite set, which hwloc uses for "everything".
  for (int bit = hwloc_bitmap_first(set); bit >= 0 && bit <= kMaxCpuNumber;
       bit = hwloc_bitmap_next(set, bit))
    list.push_back(bit);
  return list;
}

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

// Loads hwloc's view, of the machine that `text` describes if there is one; `source` receives where
// from.
Result<HwlocTopology> load(const HwlocText* text, const TopologyFile& named, std::string* source) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return system_error(errno, "hwloc_topology_init");
  HwlocTopology topology(raw);
  // hwloc by itself would fall back to this machine when it cannot read these, without a word.
  *source = "this machine";
  if (text != nullptr) {
    *source = named.label;
    const int bytes = static_cast<int>(text->text.size()) + 1;  // with the 0 at the end
    if (hwloc_topology_set_xmlbuffer(raw, text->text.c_str(), bytes) != 0)
      return system_error(errno, fmt::format("{} cannot be read as hwloc XML", *source));
  } else if (const char* file = variable("HWLOC_XMLFILE")) {
    *source = fmt::format("HWLOC_XMLFILE={}", file);
    if (hwloc_topology_set_xml(raw, file) != 0)
      return system_error(errno, fmt::format("{} cannot be read as hwloc XML", *source));
  } else if (const char* description = variable("HWLOC_SYNTHETIC")) {
    *source = fmt::format("HWLOC_SYNTHETIC={}", description);
    if (hwloc_topology_set_synthetic(raw, description) != 0)
      return system_error(errno, fmt::format("{} is not a synthetic hwloc description", *source));
  }
  // These would start GPU drivers in the process; pci (libpciaccess) leaks in hwloc 2.9 and finds
  // nothing that linuxio does not find in sysfs. Failure means that the component is not there.
  for (const char* component : {"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl", "pci"})
    (void)hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, component);
  // All processes of a host see the same machine, whatever their cgroups allow.
  (void)hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  (void)hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  if (hwloc_topology_load(raw) != 0) {
    const char* hint = "";
    if (text != nullptr)
      hint = " (`lstopo FILE.xml` writes such a file)";
    else if (variable("HWLOC_XMLFILE") != nullptr)
      hint = " (`lstopo FILE.xml` writes such a file; those of NCCL are for COMM_TOPO_FILE)";
    return system_error(errno,
                        fmt::format("hwloc cannot load the topology of {}{}", *source, hint));
  }
  return topology;
}

int index_of(hwloc_obj_t object) {
  return static_cast<int>(object->os_index == HWLOC_UNKNOWN_INDEX ? object->logical_index
                                                                  : object->os_index);
}

hwloc_obj_t ancestor_of_type(hwloc_obj_t object, hwloc_obj_type_t type) {
  while (object != nullptr && object->type != type) object = object->parent;
  return object;
}

bool is_bridge(hwloc_obj_t object, hwloc_obj_bridge_type_t upstream) {
  return object->type == HWLOC_OBJ_BRIDGE && object->attr->bridge.upstream_type == upstream;
}

std::string pci_address(const hwloc_obj_attr_u::hwloc_pcidev_attr_s& pci) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{:01x}", static_cast<unsigned>(pci.domain), pci.bus,
                     pci.dev, pci.func);
}

// GB/s of a network interface of this machine; 0 when it does not say (down, virtual: -1).
double sysfs_speed(const std::string& name) {
  // The name comes from the kernel, but must not lead the path elsewhere.
  if (name.find('/') != name.npos || name == "." || name == "..") return 0;
  std::ifstream file("/sys/class/net/" + name + "/speed");
  long long megabits = 0;
  return file >> megabits && megabits > 0 ? static_cast<double>(megabits) / 8000.0 : 0;
}

}  // namespace

class TopologyBuilder {
 public:
  TopologyBuilder(hwloc_topology_t topology, std::string source)
      : hwloc_(topology), data_(std::make_shared<Topology::Data>()) {
    data_->source = std::move(source);
    data_->is_this_machine = hwloc_topology_is_thissystem(topology) != 0;
  }

  // With what a file in NCCL's format adds, if there is one.
  Result<Topology> build(const NcclFile* file, const std::string& label) {
    add_cores();
    if (data_->cores == 0) return error(Code::kSystem, "hwloc finds no core in {}", data_->source);
    data_->packages = count(HWLOC_OBJ_PACKAGE);
    data_->numa_nodes = count(HWLOC_OBJ_NUMANODE);
    add_io();
    data_->usable_threads = to_list(hwloc_topology_get_allowed_cpuset(hwloc_));
    data_->root.type = "machine";
    data_->root.name = data_->source;
    add_children(hwloc_get_root_obj(hwloc_), data_->root);
    if (file != nullptr) {
      data_->without_file = std::make_shared<const Topology::Data>(*data_);
      data_->source += ", " + label;
      data_->root.name = data_->source;
      NcclMerge(*file, data_.get()).run();
    }
    Topology topology;
    topology.data_ = std::move(data_);
    return topology;
  }

 private:
  // At least 1: a machine without packages in hwloc's view is one package.
  int count(hwloc_obj_type_t type) const {
    return std::max(1, hwloc_get_nbobjs_by_type(hwloc_, type));
  }

  int add(Device device, Attachment attachment, hwloc_obj_t object) {
    device.id = static_cast<int>(data_->devices.size());
    device_of_[object->gp_index] = device.id;
    data_->devices.push_back(std::move(device));
    data_->attachments.push_back(std::move(attachment));
    return data_->devices.back().id;
  }

  int package_of(hwloc_obj_t object) const {
    if (hwloc_get_nbobjs_by_type(hwloc_, HWLOC_OBJ_PACKAGE) <= 0) return 0;
    if (hwloc_obj_t package = ancestor_of_type(object, HWLOC_OBJ_PACKAGE)) return index_of(package);
    // Attached above the packages, as everything is on a machine with one.
    const bool only = hwloc_get_nbobjs_by_type(hwloc_, HWLOC_OBJ_PACKAGE) == 1;
    return only ? index_of(hwloc_get_obj_by_type(hwloc_, HWLOC_OBJ_PACKAGE, 0)) : -1;
  }

  // Cores of machines that have no Core objects are their hardware threads.
  void add_cores() {
    const bool has_cores = hwloc_get_nbobjs_by_type(hwloc_, HWLOC_OBJ_CORE) > 0;
    const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    std::vector<std::tuple<int, int, unsigned, hwloc_obj_t>> ordered;
    for (hwloc_obj_t core = nullptr; (core = hwloc_get_next_obj_by_type(hwloc_, type, core));) {
      // Of a core with several nodes (such as fast and large memory) the first counts.
      const int numa = core->nodeset != nullptr ? hwloc_bitmap_first(core->nodeset) : -1;
      ordered.emplace_back(package_of(core), numa, core->logical_index, core);
    }
    std::sort(ordered.begin(), ordered.end());
    for (const auto& [package, numa, position, core] : ordered) {
      Attachment at;
      at.threads = to_list(core->cpuset);
      if (at.threads.empty()) continue;
      for (hwloc_obj_t above = core->parent; above != nullptr; above = above->parent)
        if (is_shared_cache(above)) at.shared_caches.push_back(above->gp_index);
      Device device;
      device.kind = DeviceKind::kCore;
      device.os_index = at.threads.front();
      device.name = fmt::format("core {}", device.os_index);
      device.numa_node = numa;
      device.package = package;
      add(std::move(device), std::move(at), core);
      ++data_->cores;
    }
  }

  bool is_shared_cache(hwloc_obj_t object) const {
    if (!hwloc_obj_type_is_dcache(object->type)) return false;
    const int cores =
        hwloc_get_nbobjs_inside_cpuset_by_type(hwloc_, object->cpuset, HWLOC_OBJ_CORE);
    return cores > 1 || (cores == 0 && hwloc_bitmap_weight(object->cpuset) > 1);
  }

  void add_io() {
    for (hwloc_obj_t pci = nullptr; (pci = hwloc_get_next_pcidev(hwloc_, pci));)
      if ((pci->attr->pcidev.class_id >> 8) == 0x03) add_device(pci, DeviceKind::kGpu);
    for (hwloc_obj_t os = nullptr; (os = hwloc_get_next_osdev(hwloc_, os));) {
      const auto type = os->attr->osdev.type;
      const bool on_pci = ancestor_of_type(os, HWLOC_OBJ_PCI_DEVICE) != nullptr;
      if (type == HWLOC_OBJ_OSDEV_NETWORK || type == HWLOC_OBJ_OSDEV_OPENFABRICS)
        add_device(os, DeviceKind::kNetwork);
      else if (type == HWLOC_OBJ_OSDEV_BLOCK && on_pci)  // not loop, dm and ram disks
        add_device(os, DeviceKind::kStorage);
    }
  }

  void add_device(hwloc_obj_t object, DeviceKind kind) {
    Device device;
    device.kind = kind;
    Attachment at;
    hwloc_obj_t above = object;
    for (; above != nullptr && above->cpuset == nullptr; above = above->parent) {
      if (above->type == HWLOC_OBJ_PCI_DEVICE) {
        device.address = pci_address(above->attr->pcidev);
        device.gbytes_per_second = static_cast<double>(above->attr->pcidev.linkspeed);
        at.is_nvidia = kind == DeviceKind::kGpu && above->attr->pcidev.vendor_id == kNvidia;
      } else if (is_bridge(above, HWLOC_OBJ_BRIDGE_PCI)) {
        at.pci_bridges.push_back(above->gp_index);
      } else if (is_bridge(above, HWLOC_OBJ_BRIDGE_HOST)) {
        at.host_bridge = above->gp_index;
      }
    }
    device.name = object->type == HWLOC_OBJ_OS_DEVICE && object->name != nullptr
                      ? object->name
                      : fmt::format("gpu {}", device.address);
    if (kind == DeviceKind::kNetwork && data_->is_this_machine) {
      const double speed = sysfs_speed(device.name);
      if (speed > 0) device.gbytes_per_second = speed;
    }
    if (above != nullptr) {
      device.package = package_of(above);
      if (above->nodeset != nullptr && hwloc_bitmap_weight(above->nodeset) == 1)
        device.numa_node = hwloc_bitmap_first(above->nodeset);
    }
    add(std::move(device), std::move(at), object);
  }

  // Puts what matters below `object` under `node`; objects that say nothing (private caches, groups
  // that hwloc made for its own use) let their children move up.
  void add_children(hwloc_obj_t object, TreeNode& node) {
    for (hwloc_obj_t child :
         {object->memory_first_child, object->first_child, object->io_first_child})
      for (; child != nullptr; child = child->next_sibling) {
        TreeNode own;
        if (describe(child, own)) {
          add_children(child, own);
          const bool empty_bridge = own.children.empty() && own.type.ends_with("_bridge");
          if (!empty_bridge) node.children.push_back(std::move(own));
        } else {
          add_children(child, node);
        }
      }
  }

  bool describe(hwloc_obj_t object, TreeNode& node) const {
    if (auto found = device_of_.find(object->gp_index); found != device_of_.end()) {
      node.type = "device";
      node.device = found->second;
      node.name = data_->devices[static_cast<size_t>(node.device)].name;
    } else if (object->type == HWLOC_OBJ_PACKAGE) {
      node.type = "package";
      node.os_index = index_of(object);
      node.name = fmt::format("package {}", node.os_index);
    } else if (object->type == HWLOC_OBJ_NUMANODE) {
      node.type = "numa";
      node.os_index = index_of(object);
      node.name = fmt::format("NUMA node {}", node.os_index);
      node.bytes = object->attr->numanode.local_memory;
    } else if (is_shared_cache(object)) {
      node.type = "cache";
      node.name =
          fmt::format("{} cache {}", hwloc_obj_type_string(object->type), object->logical_index);
      node.name.replace(node.name.find("Cache"), 5, "");
      node.bytes = object->attr->cache.size;
    } else if (is_bridge(object, HWLOC_OBJ_BRIDGE_HOST)) {
      const auto& down = object->attr->bridge.downstream.pci;
      node.type = "host_bridge";
      node.name = fmt::format("host bridge {:04x}:{:02x}", static_cast<unsigned>(down.domain),
                              down.secondary_bus);
    } else if (is_bridge(object, HWLOC_OBJ_BRIDGE_PCI)) {
      node.type = "pcie_bridge";
      node.address = pci_address(object->attr->bridge.upstream.pci);
      node.name = "PCIe bridge " + node.address;
    } else {
      return false;
    }
    return true;
  }

  hwloc_topology_t hwloc_;
  std::shared_ptr<Topology::Data> data_;
  std::map<uint64_t, int> device_of_;  // hwloc's global index to device id
};

Result<Topology> read_machine(const TopologyDescription& description, const TopologyFile& file) {
  std::string source;
  COMM_ASSIGN(HwlocTopology topology, load(std::get_if<HwlocText>(&description), file, &source));
  return TopologyBuilder(topology.get(), std::move(source))
      .build(std::get_if<NcclFile>(&description), file.label);
}

}  // namespace libcomm
