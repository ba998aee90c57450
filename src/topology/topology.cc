// Questions to a Topology that need no hwloc: devices and the paths between them.
#include "src/topology/topology.h"

#include <algorithm>

#include "src/topology/path_model.h"
#include "src/topology/topology_data.h"

namespace libcomm {
namespace {

template <typename T>
bool share_one(const std::vector<T>& a, const std::vector<T>& b) {
  return std::find_first_of(a.begin(), a.end(), b.begin(), b.end()) != a.end();
}

bool same_known(int a, int b) { return a >= 0 && a == b; }

// Of the way from one GPU to the other: the fewer of its ends; 0: there is none.
int nvlinks_between(const Device& a, const Attachment& at_a, const Device& b,
                    const Attachment& at_b) {
  const auto to = [](const Attachment& at, int device) {
    const auto found = at.nvlinks.find(device);
    return found == at.nvlinks.end() ? 0 : found->second;
  };
  // A file may tell of direct links at one end only.
  return std::max({to(at_a, b.id), to(at_b, a.id), std::min(at_a.switch_links, at_b.switch_links)});
}

// Of each link between two GPUs: what the slower end, if both are known, can do.
double link_gbs_between(const Attachment& a, const Attachment& b, double of_unknown) {
  if (a.nvlink_gbs > 0 && b.nvlink_gbs > 0) return std::min(a.nvlink_gbs, b.nvlink_gbs);
  const double known = std::max(a.nvlink_gbs, b.nvlink_gbs);
  return known > 0 ? known : of_unknown;
}

PathClass classify(const Device& a, const Attachment& at_a, const Device& b,
                   const Attachment& at_b) {
  if (a.id == b.id || (!a.address.empty() && a.address == b.address)) return PathClass::kSelf;
  const bool core_a = a.kind == DeviceKind::kCore;
  const bool core_b = b.kind == DeviceKind::kCore;
  if (!core_a && !core_b) {
    if (nvlinks_between(a, at_a, b, at_b) > 0) return PathClass::kNvlink;
    // Between devices the fabric counts, not the memory that they are close to: two host bridges of
    // one NUMA node are further apart than two ports of one switch.
    if (share_one(at_a.pci_bridges, at_b.pci_bridges)) return PathClass::kPcieSwitch;
    if (at_a.host_bridge != 0 && at_a.host_bridge == at_b.host_bridge) return PathClass::kRoot;
    return same_known(a.package, b.package) ? PathClass::kSocket : PathClass::kSystem;
  }
  if (core_a && core_b && share_one(at_a.shared_caches, at_b.shared_caches))
    return PathClass::kCache;
  if (same_known(a.numa_node, b.numa_node)) return PathClass::kNuma;
  return same_known(a.package, b.package) ? PathClass::kSocket : PathClass::kSystem;
}

// Whether the places of two devices, of which a file in NCCL's format may place one, tell how far
// they are apart. It says nothing of that when it does not tell at which of the machine's NUMA
// nodes a device is, or when the other device is not in the file and may be next to it.
bool are_comparable(const Device& a, const Attachment& at_a, const Device& b,
                    const Attachment& at_b) {
  if (at_a.in_file == at_b.in_file) return true;
  if (!(at_a.in_file ? at_a : at_b).at_known_node) return false;
  const Device& other = at_a.in_file ? b : a;
  return other.kind == DeviceKind::kCore || (other.numa_node >= 0 && a.numa_node != b.numa_node);
}

}  // namespace

PathClass Topology::class_between(const Data& data, size_t a, size_t b) {
  const auto& devices = data.devices;
  const auto& places = data.attachments;
  PathClass path = classify(devices[a], places[a], devices[b], places[b]);
  if (!data.without_file || are_comparable(devices[a], places[a], devices[b], places[b]))
    return path;
  // Then a file must not make them farther than they are without it. To NCCL all devices of a NUMA
  // node are below one host bridge.
  const auto nearer = [&](PathClass other) { path = std::min(path, other); };
  const bool is_core = devices[a].kind == DeviceKind::kCore || devices[b].kind == DeviceKind::kCore;
  if (!is_core && same_known(devices[a].numa_node, devices[b].numa_node)) nearer(PathClass::kRoot);
  if (std::max(a, b) < data.without_file->devices.size())
    nearer(class_between(*data.without_file, a, b));
  return path;
}

const std::vector<Device>& Topology::devices() const { return data_->devices; }
int Topology::cores() const { return data_->cores; }
int Topology::numa_nodes() const { return data_->numa_nodes; }
int Topology::packages() const { return data_->packages; }
bool Topology::is_this_machine() const { return data_->is_this_machine; }

Path Topology::path(int device_a, int device_b) const {
  const auto& devices = data_->devices;
  const auto known = [&](int id) { return id >= 0 && static_cast<size_t>(id) < devices.size(); };
  if (!known(device_a) || !known(device_b)) return model_of(PathClass::kSystem);
  const auto a = static_cast<size_t>(device_a);
  const auto b = static_cast<size_t>(device_b);
  const PathClass path = class_between(*data_, a, b);
  Path result = priced(path, devices[a], devices[b]);
  if (path == PathClass::kNvlink) {
    const Attachment &at_a = data_->attachments[a], &at_b = data_->attachments[b];
    result.gbytes_per_second = nvlinks_between(devices[a], at_a, devices[b], at_b) *
                               link_gbs_between(at_a, at_b, result.gbytes_per_second);
  }
  return result;
}

Topology Topology::without_file() const {
  Topology found = *this;
  if (data_->without_file) found.data_ = data_->without_file;
  return found;
}

bool Topology::is_placed_by_file(int device) const {
  return device >= 0 && static_cast<size_t>(device) < data_->devices.size() &&
         data_->attachments[static_cast<size_t>(device)].at_known_node;
}

bool Topology::knows_nvlinks(int device) const {
  return device >= 0 && static_cast<size_t>(device) < data_->devices.size() &&
         data_->attachments[static_cast<size_t>(device)].nvlinks_known;
}

int Topology::find_device(DeviceKind kind, std::string_view name) const {
  for (const Device& device : data_->devices)
    if (device.kind == kind && device.name == name) return device.id;
  return -1;
}

std::vector<int> Topology::usable_cores() const {
  std::vector<int> usable;
  for (const Device& device : data_->devices)
    if (device.kind == DeviceKind::kCore &&
        share_one(data_->attachments[static_cast<size_t>(device.id)].threads,
                  data_->usable_threads))
      usable.push_back(device.id);
  return usable;
}

Path path_between(const RankPlace& a, const RankPlace& b) {
  if (a.host != b.host) return model_of(PathClass::kNetwork);
  if (same_known(a.core, b.core)) return model_of(PathClass::kSelf);
  if (same_known(a.numa_node, b.numa_node)) return model_of(PathClass::kNuma);
  return model_of(same_known(a.package, b.package) ? PathClass::kSocket : PathClass::kSystem);
}

std::vector<int> ring_order(std::span<const RankPlace> places) {
  const int nranks = static_cast<int>(places.size());
  const auto place = [&](int rank) -> const RankPlace& {
    return places[static_cast<size_t>(rank)];
  };
  // Hosts are numbered densely by contract, but a wrong number must not index out of bounds: sort
  // by (host, rank) and take each host's first.
  std::vector<int> by_host(places.size());
  for (int rank = 0; rank < nranks; ++rank) by_host[static_cast<size_t>(rank)] = rank;
  std::stable_sort(by_host.begin(), by_host.end(),
                   [&](int a, int b) { return place(a).host < place(b).host; });
  std::vector<int> lowest(places.size());  // lowest rank on the rank's host
  for (size_t i = 0; i < by_host.size(); ++i) {
    const bool first = i == 0 || place(by_host[i]).host != place(by_host[i - 1]).host;
    lowest[static_cast<size_t>(by_host[i])] =
        first ? by_host[i] : lowest[static_cast<size_t>(by_host[i - 1])];
  }
  const auto key = [&](int rank) {
    const RankPlace& p = place(rank);
    return std::tuple(lowest[static_cast<size_t>(rank)], p.package, p.numa_node, p.core, rank);
  };
  std::vector<int> order = std::move(by_host);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  return order;
}

}  // namespace libcomm
