// A Topology as text: a tree for people, JSON for programs.
#include <algorithm>

#include "src/topology/cpu_list.h"
#include "src/topology/json.h"
#include "src/topology/topology.h"
#include "src/topology/topology_data.h"

namespace libcomm {
namespace {

const char* name_of_kind(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCore:
      return "core";
    case DeviceKind::kNetwork:
      return "network";
    case DeviceKind::kGpu:
      return "gpu";
    case DeviceKind::kStorage:
      return "storage";
    case DeviceKind::kOther:
      break;
  }
  return "other";
}

std::string human_size(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.4g} {}", value, kUnits[unit]);
}

std::string plural(int count, const char* one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

class TreeText {
 public:
  TreeText(const std::vector<Device>& devices, const std::vector<Attachment>& attachments,
           const std::vector<int>& usable)
      : devices_(devices), attachments_(attachments), usable_(usable) {}

  // The lines below `node`, two blanks further in. A run of cores takes one line.
  void children(const TreeNode& node, const std::string& indent) {
    for (size_t i = 0; i < node.children.size();) {
      std::vector<int> cores;
      for (; i < node.children.size() && is_core(node.children[i]); ++i)
        cores.push_back(node.children[i].device);
      if (!cores.empty()) {
        text += indent + cores_line(cores) + '\n';
        continue;
      }
      const TreeNode& child = node.children[i++];
      text += indent + (child.device >= 0 ? device_line(child.device) : child.name);
      if (child.bytes > 0) text += ": " + human_size(child.bytes);
      text += '\n';
      children(child, indent + "  ");
    }
  }

  std::string text;

 private:
  const Device& device(int id) const { return devices_[static_cast<size_t>(id)]; }
  bool is_core(const TreeNode& node) const {
    return node.device >= 0 && device(node.device).kind == DeviceKind::kCore;
  }

  std::string cores_line(const std::vector<int>& cores) const {
    std::vector<int> numbers, usable;
    size_t most_threads = 0;
    for (int id : cores) {
      const auto& threads = attachments_[static_cast<size_t>(id)].threads;
      numbers.push_back(device(id).os_index);
      most_threads = std::max(most_threads, threads.size());
      if (std::find_first_of(threads.begin(), threads.end(), usable_.begin(), usable_.end()) !=
          threads.end())
        usable.push_back(device(id).os_index);
    }
    std::string line =
        fmt::format("{} {}", cores.size() == 1 ? "core" : "cores", format_cpu_list(numbers));
    if (most_threads > 1)
      line +=
          fmt::format(", {} hardware threads{}", most_threads, cores.size() == 1 ? "" : " each");
    if (usable.empty())
      line += " (not for this process)";
    else if (usable.size() < cores.size())
      line += fmt::format(" (for this process: {})", format_cpu_list(usable));
    return line;
  }

  std::string device_line(int id) const {
    const Device& d = device(id);
    std::string line = d.name;
    if (d.kind != DeviceKind::kGpu) line += fmt::format(" {}", name_of_kind(d.kind));
    if (!d.address.empty() && d.kind != DeviceKind::kGpu) line += " " + d.address;
    if (d.gbytes_per_second > 0) line += fmt::format(", {:.4g} GB/s", d.gbytes_per_second);
    const Attachment& at = attachments_[static_cast<size_t>(id)];
    int nvlinks = at.switch_links;
    for (const auto& [to, links] : at.nvlinks) nvlinks += links;
    if (nvlinks > 0) line += ", " + plural(nvlinks, "NVLink");
    if (nvlinks > 0 && at.nvlink_gbs > 0) line += fmt::format(" of {:.4g} GB/s", at.nvlink_gbs);
    return line;
  }

  const std::vector<Device>& devices_;
  const std::vector<Attachment>& attachments_;
  const std::vector<int>& usable_;
};

std::string json_device(const Device& d, const Attachment& at) {
  std::string out = fmt::format(
      R"({{"id": {}, "kind": "{}", "name": {}, "address": {}, "numa_node": {}, "package": {})",
      d.id, name_of_kind(d.kind), json_quoted(d.name), json_quoted(d.address), d.numa_node,
      d.package);
  if (d.kind == DeviceKind::kCore)
    out += fmt::format(R"(, "threads": [{}])", fmt::join(at.threads, ", "));
  else
    out += fmt::format(R"(, "gbytes_per_second": {:.6g})", d.gbytes_per_second);
  if (at.switch_links > 0) out += fmt::format(R"(, "nvswitch_links": {})", at.switch_links);
  if (!at.nvlinks.empty()) {
    std::vector<std::string> links;
    for (const auto& [to, count] : at.nvlinks)
      links.push_back(fmt::format(R"({{"gpu": {}, "links": {}}})", to, count));
    out += fmt::format(R"(, "nvlinks": [{}])", fmt::join(links, ", "));
  }
  if (at.nvlink_gbs > 0 && (at.switch_links > 0 || !at.nvlinks.empty()))
    out += fmt::format(R"(, "nvlink_gbytes_per_second": {:.6g})", at.nvlink_gbs);
  return out += '}';
}

void json_node(const TreeNode& node, const std::string& indent, std::string& out) {
  out += fmt::format(R"({{"type": {}, "name": {})", json_quoted(node.type), json_quoted(node.name));
  if (node.bytes > 0) out += fmt::format(R"(, "bytes": {})", node.bytes);
  if (node.device >= 0) out += fmt::format(R"(, "device": {})", node.device);
  if (!node.children.empty()) {
    out += R"(, "children": [)";
    const char* separator = "\n";
    for (const TreeNode& child : node.children) {
      out += separator + indent + "  ";
      json_node(child, indent + "  ", out);
      separator = ",\n";
    }
    out += "\n" + indent + "]";
  }
  out += '}';
}

}  // namespace

std::string Topology::to_tree() const {
  TreeText tree(data_->devices, data_->attachments, data_->usable_threads);
  tree.text = fmt::format("machine: {}, {}, {} ({})\n", plural(data_->packages, "package"),
                          plural(data_->numa_nodes, "NUMA node"), plural(data_->cores, "core"),
                          data_->source);
  tree.children(data_->root, "  ");
  return std::move(tree.text);
}

std::string Topology::to_json() const {
  std::string out = fmt::format(
      "{{\n  \"source\": {},\n  \"this_machine\": {},\n  \"packages\": {},\n  \"numa_nodes\": {},\n"
      "  \"cores\": {},\n  \"usable_cores\": [{}],\n  \"devices\": [",
      json_quoted(data_->source), data_->is_this_machine, data_->packages, data_->numa_nodes,
      data_->cores, fmt::join(usable_cores(), ", "));
  const char* separator = "\n    ";
  for (const Device& device : data_->devices) {
    out += separator + json_device(device, data_->attachments[static_cast<size_t>(device.id)]);
    separator = ",\n    ";
  }
  out += "\n  ],\n  \"tree\": ";
  json_node(data_->root, "  ", out);
  return out += "\n}\n";
}

}  // namespace libcomm
