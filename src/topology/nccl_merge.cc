#include "src/topology/nccl_merge.h"

#include <algorithm>
#include <utility>

namespace libcomm {
namespace {

bool is_bridge(const TreeNode& node) { return node.type.ends_with("_bridge"); }

// Keys of interfaces that hang on a <cpu> itself; addresses have no blank.
std::string key_of_cpu(size_t index) { return fmt::format("cpu {}", index); }
bool is_of_cpu(std::string_view key) { return key.starts_with("cpu "); }

// The address without its function: what one card has in common.
std::string_view card_of(std::string_view address) { return address.substr(0, address.rfind('.')); }

struct Found {
  TreeNode* parent = nullptr;
  size_t position = 0;
  int package = -1;
};

// The NUMA node of that number below `node`. A core that is all of its NUMA node has it below
// itself, and stands for it here.
Found find_numa_node(TreeNode& node, int number, int package) {
  if (node.type == "package") package = node.os_index;
  for (size_t i = 0; i < node.children.size(); ++i) {
    TreeNode& child = node.children[i];
    if (child.type == "numa" && child.os_index == number) return {&node, i, package};
    if (const Found found = find_numa_node(child, number, package); found.parent != nullptr)
      return child.device < 0 ? found : Found{&node, i, found.package};
  }
  return {};
}

bool holds_numa_node(const TreeNode& node) {
  return node.type == "numa" ||
         std::any_of(node.children.begin(), node.children.end(), holds_numa_node);
}

// The only NUMA node of a machine, or -1.
int only_numa_node(const TreeNode& node, int* count) {
  int number = -1;
  for (const TreeNode& child : node.children) {
    if (child.type == "numa") {
      number = child.os_index;
      ++*count;
    }
    const int below = only_numa_node(child, count);
    if (below >= 0) number = below;
  }
  return *count == 1 ? number : -1;
}

void take_nvlinks(const std::vector<NcclPci>& pcis, NvlinksOfGpus* nvlinks) {
  for (const NcclPci& pci : pcis) {
    take_nvlinks(pci.children, nvlinks);
    if (!pci.nvlinks.links.empty()) nvlinks->emplace(pci.address, pci.nvlinks);
  }
}

}  // namespace

void NcclMerge::run() {
  for (const Device& known : data_.devices)
    if (known.kind == DeviceKind::kNetwork) interfaces_.insert(known.name);
  for (size_t i = 0; i < file_.cpus.size(); ++i) {
    note_names(file_.cpus[i].children);
    note_names(file_.cpus[i].nets, key_of_cpu(i));
  }
  take_named(data_.root);
  for (size_t i = 0; i < file_.cpus.size(); ++i) {
    TreeNode bridge = host_bridge_of(file_.cpus[i], i);
    if (bridge.children.empty()) continue;
    const Place place = place_of(file_.cpus[i].numa_node);
    bridge.name = place.numa_node >= 0 ? fmt::format("host bridge of NUMA node {}", place.numa_node)
                                       : "host bridge of no known NUMA node";
    attach(bridge, {}, place);
    auto& siblings = place.parent->children;
    siblings.insert(siblings.begin() + static_cast<ptrdiff_t>(place.position), std::move(bridge));
  }
  NvlinksOfGpus nvlinks;
  for (const NcclCpu& cpu : file_.cpus) take_nvlinks(cpu.children, &nvlinks);
  add_nvlinks(nvlinks, data_.devices, &data_.attachments);
}

void NcclMerge::note_names(const std::vector<NcclPci>& pcis) {
  for (const NcclPci& pci : pcis) {
    named_[pci.address] = pci.is_bridge;
    note_names(pci.nets, pci.address);
    note_names(pci.children);
  }
}

void NcclMerge::note_names(const std::vector<NcclNet>& nets, const std::string& key) {
  for (const NcclNet& net : nets) {
    const auto [noted, is_new] = net_places_.emplace(net.name, key);
    std::string& place = noted->second;
    if (is_new || place == key || !(place.empty() || is_of_cpu(place))) continue;
    // NCCL writes an interface whose place it does not know into every <cpu>.
    place = is_of_cpu(key) ? std::string() : key;
  }
}

std::string NcclMerge::key_of(const TreeNode& node) const {
  if (node.type == "pcie_bridge") return named_.contains(node.address) ? node.address : "";
  if (node.device < 0 || device(node).kind == DeviceKind::kCore) return {};
  const std::string& address = device(node).address;
  if (named_.contains(address)) return address;
  if (const auto net = net_places_.find(device(node).name);
      device(node).kind == DeviceKind::kNetwork && net != net_places_.end())
    return net->second;
  // NCCL names one function of a card with several, for all of them.
  const std::string_view card = card_of(address);
  for (auto it = named_.lower_bound(std::string(card)); it != named_.end(); ++it) {
    if (card.empty() || card_of(it->first) != card) break;
    if (!it->second) return it->first;
  }
  return {};
}

// From the leaves up, so that what the file places by itself has left a bridge that is taken.
void NcclMerge::take_named(TreeNode& node) {
  std::vector<TreeNode> stay;
  for (TreeNode& child : node.children) {
    take_named(child);
    const std::string key = key_of(child);
    if (!key.empty())
      taken_[key].push_back(std::move(child));
    else if (!is_bridge(child) || !child.children.empty())
      stay.push_back(std::move(child));
  }
  node.children = std::move(stay);
}

std::vector<TreeNode> NcclMerge::taken(const std::string& key) {
  const auto found = taken_.find(key);
  return found != taken_.end() ? std::exchange(found->second, {}) : std::vector<TreeNode>();
}

TreeNode NcclMerge::host_bridge_of(const NcclCpu& cpu, size_t index) {
  TreeNode bridge;
  bridge.type = "host_bridge";
  for (TreeNode& node : taken(key_of_cpu(index))) {
    for (const NcclNet& net : cpu.nets)
      if (net.name == device(node).name && net.gbytes_per_second > 0)
        device(node).gbytes_per_second = net.gbytes_per_second;
    bridge.children.push_back(std::move(node));
  }
  for (const NcclPci& pci : cpu.children) add_pci(pci, bridge);
  for (const NcclNet& net : cpu.nets)
    if (net_places_.at(net.name) == key_of_cpu(index)) add_net(net, bridge);
  return bridge;
}

void NcclMerge::add_pci(const NcclPci& pci, TreeNode& parent) {
  TreeNode bridge;
  bridge.type = "pcie_bridge";
  bridge.address = pci.address;
  bridge.name = "PCIe bridge " + pci.address;
  std::vector<TreeNode> devices;
  for (TreeNode& node : taken(pci.address)) {
    // hwloc's bridge of this address gives what the file does not place.
    auto& into = is_bridge(node) ? bridge.children : devices;
    if (is_bridge(node))
      std::move(node.children.begin(), node.children.end(), std::back_inserter(into));
    else
      into.push_back(std::move(node));
  }
  for (const NcclPci& child : pci.children) add_pci(child, bridge);
  const bool holds_others = pci.is_bridge || !bridge.children.empty();
  TreeNode& holder = holds_others ? bridge : parent;
  for (TreeNode& node : devices) {
    set_speeds(node, pci);
    holder.children.push_back(std::move(node));
  }
  if (devices.empty() && (!holds_others || !pci.nets.empty())) add_devices(pci, holder);
  if (!bridge.children.empty()) parent.children.push_back(std::move(bridge));
}

void NcclMerge::add_devices(const NcclPci& pci, TreeNode& parent) {
  const size_t before = parent.children.size();
  if (pci.kind != DeviceKind::kGpu)
    for (const NcclNet& net : pci.nets)
      if (net_places_.at(net.name) == pci.address && !interfaces_.contains(net.name)) {
        const double speed =
            net.gbytes_per_second > 0 ? net.gbytes_per_second : pci.gbytes_per_second;
        parent.children.push_back(new_device(DeviceKind::kNetwork, net.name, pci.address, speed));
      }
  if (parent.children.size() > before) return;
  const char* what = pci.kind == DeviceKind::kGpu       ? "gpu"
                     : pci.kind == DeviceKind::kNetwork ? "nic"
                                                        : "pci";
  parent.children.push_back(new_device(pci.kind, fmt::format("{} {}", what, pci.address),
                                       pci.address, pci.gbytes_per_second));
}

// An interface without a PCI device.
void NcclMerge::add_net(const NcclNet& net, TreeNode& parent) {
  if (interfaces_.contains(net.name)) return;
  parent.children.push_back(new_device(DeviceKind::kNetwork, net.name, "", net.gbytes_per_second));
}

TreeNode NcclMerge::new_device(DeviceKind kind, std::string name, const std::string& address,
                               double speed) {
  if (kind == DeviceKind::kNetwork) interfaces_.insert(name);
  Device made;
  made.id = static_cast<int>(data_.devices.size());
  made.kind = kind;
  made.name = name;
  made.address = address;
  made.gbytes_per_second = speed;
  TreeNode node;
  node.type = "device";
  node.name = std::move(name);
  node.device = made.id;
  data_.devices.push_back(std::move(made));
  data_.attachments.emplace_back();
  return node;
}

// What the file says is stronger: a virtual machine shows links as it pleases. But the line rate of
// an interface of this machine is better than the file's PCIe link.
void NcclMerge::set_speeds(const TreeNode& node, const NcclPci& pci) {
  Device& known = device(node);
  const bool has_rate = known.kind == DeviceKind::kNetwork && known.gbytes_per_second > 0;
  if (pci.gbytes_per_second > 0 && !has_rate) known.gbytes_per_second = pci.gbytes_per_second;
  for (const NcclNet& net : pci.nets)
    if (net.name == known.name && net.gbytes_per_second > 0)
      known.gbytes_per_second = net.gbytes_per_second;
}

NcclMerge::Place NcclMerge::place_of(int numa_node) {
  int count = 0;
  if (numa_node < 0) numa_node = only_numa_node(data_.root, &count);
  const int only_package = data_.packages == 1 ? 0 : -1;
  if (numa_node < 0) return {-1, only_package, false, &data_.root, data_.root.children.size()};
  Found found = find_numa_node(data_.root, numa_node, only_package);
  if (found.parent == nullptr) {
    // Not of this machine: no cores are there, and it is in no known package.
    TreeNode node;
    node.type = "numa";
    node.name = fmt::format("NUMA node {}, known from the file alone", numa_node);
    node.os_index = numa_node;
    data_.root.children.push_back(std::move(node));
    ++data_.numa_nodes;
    added_nodes_.insert(numa_node);
    found = {&data_.root, data_.root.children.size() - 1, -1};
  }
  // After the node's cores and host bridges, which are its siblings.
  auto& siblings = found.parent->children;
  size_t position = found.position + 1;
  while (position < siblings.size() && !holds_numa_node(siblings[position])) ++position;
  return {numa_node, found.package, !added_nodes_.contains(numa_node), found.parent, position};
}

void NcclMerge::attach(const TreeNode& node, Attachment at, const Place& place) {
  if (node.type == "host_bridge") at.host_bridge = next_id_++;
  if (node.type == "pcie_bridge") at.pci_bridges.push_back(next_id_++);
  if (node.device >= 0) {
    Device& placed = device(node);
    placed.numa_node = place.numa_node;
    placed.package = place.package;
    at.in_file = true;
    at.at_known_node = place.is_known;
    Attachment& found = data_.attachments[static_cast<size_t>(node.device)];
    at.is_nvidia = found.is_nvidia;
    found = at;
  }
  for (const TreeNode& child : node.children) attach(child, at, place);
}

}  // namespace libcomm
