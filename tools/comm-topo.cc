// comm-topo: what the library sees of a machine, as a tree, as JSON, or as the paths between its
// devices.
#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "src/base/knobs.h"
#include "src/topology/cpu_list.h"
#include "src/topology/json.h"
#include "src/topology/topology.h"

namespace libcomm {
namespace {

constexpr const char* kHelp =
    R"(comm-topo: print the topology of this machine as libcomm sees it

usage: comm-topo [--json] [--paths]
  --json    print JSON instead of text
  --paths   print the class, latency and bandwidth of the path between any two devices;
            cores that are alike (same cache, same NUMA node) share a line
  --help    print this text

COMM_TOPO_FILE=FILE puts the devices where a topology file of NCCL's (NCCL_TOPO_FILE) says.
HWLOC_XMLFILE=FILE shows the machine that `lstopo FILE.xml` saved, HWLOC_SYNTHETIC="pack:2 core:8 pu:2"
one that hwloc makes up. Exit status: 0, 1 when the topology cannot be read, 2 for wrong usage.
)";

// A line of the path matrix: one device, or cores of which any two are equally far from all else.
struct Row {
  std::string name;
  std::vector<int> devices;
};

std::vector<Row> matrix_rows(const Topology& topology) {
  std::vector<Row> rows;
  for (const Device& device : topology.devices()) {
    if (device.kind == DeviceKind::kCore && !rows.empty()) {
      Row& last = rows.back();
      const Device& first = topology.devices()[static_cast<size_t>(last.devices.front())];
      const PathClass path = topology.path(first.id, device.id).path;
      if (first.numa_node == device.numa_node &&
          (path == PathClass::kCache || path == PathClass::kNuma) &&
          topology.path(first.id, last.devices.back()).path <= path &&
          (last.devices.size() == 1 || topology.path(first.id, last.devices[1]).path == path)) {
        last.devices.push_back(device.id);
        continue;
      }
    }
    rows.push_back({device.name, {device.id}});
  }
  for (Row& row : rows) {
    if (row.devices.size() == 1) continue;
    std::vector<int> numbers;
    for (int id : row.devices)
      numbers.push_back(topology.devices()[static_cast<size_t>(id)].os_index);
    row.name = "cores " + format_cpu_list(numbers);
  }
  return rows;
}

// Within a line of several cores: the path between two of them.
Path path_between_rows(const Topology& topology, const Row& a, const Row& b) {
  return topology.path(a.devices.front(), b.devices.back());
}

std::string paths_text(const Topology& topology) {
  const std::vector<Row> rows = matrix_rows(topology);
  std::string text = "class, latency in us, GB/s (model constants, not measured)\n";
  size_t width = 0;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  text += fmt::format("{:<{}}", "", width);
  for (size_t column = 0; column < rows.size(); ++column)
    text += fmt::format("  {:<16}", fmt::format("[{}]", column));
  text += '\n';
  for (size_t i = 0; i < rows.size(); ++i) {
    text += fmt::format("{:<{}}", rows[i].name, width);
    for (const Row& column : rows) {
      const Path p = path_between_rows(topology, rows[i], column);
      text += fmt::format("  {:<7}{:>4.2f} {:>4.3g}", name_of(p.path), p.latency_us,
                          p.gbytes_per_second);
    }
    text += fmt::format("  [{}]\n", i);
  }
  return text;
}

std::string paths_json(const Topology& topology) {
  const std::vector<Row> rows = matrix_rows(topology);
  std::string text = "{\n  \"rows\": [";
  for (const Row& row : rows)
    text += fmt::format("{}\n    {{\"name\": {}, \"devices\": [{}]}}", &row == &rows[0] ? "" : ",",
                        json_quoted(row.name), fmt::join(row.devices, ", "));
  text += "\n  ],\n  \"paths\": [";
  for (const Row& row : rows) {
    text += &row == &rows[0] ? "\n    [" : ",\n    [";
    for (const Row& column : rows) {
      const Path p = path_between_rows(topology, row, column);
      text += fmt::format(
          R"({}{{"class": "{}", "latency_us": {:.6g}, "gbytes_per_second": {:.6g}}})",
          &column == &rows[0] ? "" : ", ", name_of(p.path), p.latency_us, p.gbytes_per_second);
    }
    text += ']';
  }
  return text += "\n  ]\n}\n";
}

Result<Topology> detect() {
  COMM_ASSIGN(const auto knobs, Knobs::load());
  return Topology::detect_with_nvlinks(TopologyFile::from(*knobs));
}

int run(int argc, char** argv) {
  bool json = false, paths = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--json") {
      json = true;
    } else if (option == "--paths") {
      paths = true;
    } else if (option == "--help" || option == "-h") {
      fmt::print("{}", kHelp);
      return 0;
    } else {
      fmt::print(stderr, "comm-topo: unknown option '{}'; comm-topo --help lists them\n", option);
      return 2;
    }
  }
  const auto topology = detect();
  if (!topology) {
    fmt::print(stderr, "comm-topo: {}\n", topology.status().to_string());
    return 1;
  }
  if (paths)
    fmt::print("{}", json ? paths_json(*topology) : paths_text(*topology));
  else
    fmt::print("{}", json ? topology->to_json() : topology->to_tree());
  // A full disk or a closed pipe must not look like success.
  if (std::fflush(stdout) != 0) {
    std::perror("comm-topo: writing the output");
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace libcomm

int main(int argc, char** argv) { return libcomm::run(argc, argv); }
