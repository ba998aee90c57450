// Topology files that a test writes, laid over machines that hwloc makes up or reads from files.
#pragma once

#include <gmock/gmock.h>

#include "tests/base/temp_folder.h"
#include "tests/topology/machines.h"

namespace libcomm {

inline Result<Topology> detect_with(const std::string& path, const char* base,
                                    const std::string& value) {
  setenv(base, value.c_str(), 1);
  auto topology = Topology::detect({path, "COMM_TOPO_FILE=" + path});
  unsetenv(base);
  return topology;
}

// A machine of this text over one with two NUMA nodes in a package each, and how it is refused.
class Written {
 public:
  explicit Written(const std::string& text) : path_(folder_ / "topo.xml") {
    test::write_file(path_, text);
  }
  Result<Topology> read(const char* machine = "pack:2 numa:1 core:2 pu:1") const {
    return detect_with(path_, "HWLOC_SYNTHETIC", machine);
  }
  std::string tree(const char* machine = "pack:2 numa:1 core:2 pu:1") const {
    const auto topology = read(machine);
    return topology ? lines_of(*topology) : topology.status().message();
  }
  static std::string lines_of(const Topology& topology) {
    const std::string tree = topology.to_tree();
    return tree.substr(tree.find('\n') + 1);
  }
  // Without the file's name in front.
  std::string refusal(Code code) const {
    const auto topology = read();
    EXPECT_FALSE(topology) << topology->to_tree();
    if (topology) return {};
    EXPECT_EQ(topology.status().code(), code);
    const std::string start = "COMM_TOPO_FILE=" + path_ + ": ";
    EXPECT_THAT(topology.status().message(), testing::StartsWith(start));
    return topology.status().message().substr(start.size());
  }

 private:
  test::TempFolder folder_;
  std::string path_;
};

inline const Device& named(const Topology& t, const std::string& name) {
  for (const Device& device : t.devices())
    if (device.name == name) return device;
  ADD_FAILURE() << "no device " << name << " in\n" << t.to_tree();
  return t.devices().front();
}
inline PathClass between(const Topology& t, const std::string& a, const std::string& b) {
  return t.path(named(t, a).id, named(t, b).id).path;
}

}  // namespace libcomm
