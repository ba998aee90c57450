// How far devices are apart with a topology file in NCCL's format: those that it names and those
// that it does not.
#include "tests/topology/written_file.h"

namespace libcomm {
namespace {

std::string data(const std::string& name) { return std::string(COMM_TEST_DATA "/") + name; }

// This file over a machine of hwloc's.
Topology over_file(const std::string& machine, const std::string& text) {
  const Written file("<system version=\"1\">" + text + "</system>");
  setenv("HWLOC_XMLFILE", data(machine).c_str(), 1);
  auto topology = file.read();
  unsetenv("HWLOC_XMLFILE");
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}

constexpr const char* kGpu3 = "<pci busid=\"0000:03:00.0\" class=\"0x030200\"/>";

TEST(NcclPaths, ToADeviceThatTheFileDoesNotNameStayWhatTheyWere) {
  const Topology t =
      over_file("switches.xml", std::string("<cpu numaid=\"0\">") + kGpu3 + "</cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "eth0", "gpu 0000:03:00.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:07:00.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "nvme0n1"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:07:00.0", "eth1"), PathClass::kPcieSwitch) << "neither is named";
  EXPECT_EQ(between(t, "eth0", "eth2"), PathClass::kSocket) << "neither is named";
}

TEST(NcclPaths, OfOneNumaNodeAreBelowOneHostBridgeAsInNccl) {
  const Topology t = over_file("switches.xml", std::string("<cpu numaid=\"0\">") + kGpu3 +
                                                   "<pci busid=\"0055:01:00.0\"/></cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth2"), PathClass::kRoot) << "hwloc has it elsewhere";
  EXPECT_EQ(between(t, "pci 0055:01:00.0", "eth2"), PathClass::kRoot) << "hwloc has it nowhere";
  EXPECT_EQ(between(t, "pci 0055:01:00.0", "gpu 0000:81:00.0"), PathClass::kSystem);
}

TEST(NcclPaths, FollowTheFileToAnotherNumaNode) {
  const Topology t =
      over_file("switches.xml", std::string("<cpu numaid=\"1\">") + kGpu3 + "</cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 2"), PathClass::kNuma);
}

// Virtual machines show one bus at no NUMA node.
TEST(NcclPaths, ToADeviceAtNoKnownNodeStayWhatTheyWere) {
  const Topology t = over_file("flat_vm.xml",
                               "<cpu numaid=\"0\"><pci busid=\"0000:00:05.0\"/></cpu>"
                               "<cpu numaid=\"1\"><pci busid=\"0000:00:06.0\"/></cpu>");
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "mlx5_0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "mlx5_0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "gpu 0000:01:01.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "gpu 0000:00:06.0"), PathClass::kSystem)
      << "the file says so";
  EXPECT_EQ(between(t, "mlx5_0", "core 0"), PathClass::kSystem);
}

TEST(NcclPaths, ToCoresStayWhatTheyWereWhereTheMachineDoesNotHaveTheNumaNode) {
  for (const char* node : {"7", "-1"}) {
    const Topology t = over_file("switches.xml", fmt::format("<cpu numaid=\"{}\">", node) + kGpu3 +
                                                     "<pci busid=\"0055:01:00.0\"/></cpu>");
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 0"), PathClass::kNuma) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 2"), PathClass::kSystem) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "pci 0055:01:00.0"), PathClass::kRoot) << node;
    EXPECT_EQ(between(t, "pci 0055:01:00.0", "core 0"), PathClass::kSystem) << node;
  }
}

TEST(NcclPaths, AreThoseOfHwlocWithoutTheFile) {
  const Topology t = over_file("switches.xml", std::string("<cpu numaid=\"1\">") + kGpu3 +
                                                   "<pci busid=\"0055:01:00.0\"/></cpu>");
  const Topology found = t.without_file();
  EXPECT_EQ(between(found, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch);
  EXPECT_EQ(found.to_tree(), from_file("switches.xml").to_tree());
  EXPECT_EQ(found.without_file().to_tree(), found.to_tree());
  EXPECT_TRUE(t.is_placed_by_file(named(t, "gpu 0000:03:00.0").id));
  EXPECT_TRUE(t.is_placed_by_file(named(t, "pci 0055:01:00.0").id));
  EXPECT_FALSE(t.is_placed_by_file(named(t, "eth0").id));
  EXPECT_FALSE(t.is_placed_by_file(-1));
  EXPECT_FALSE(t.is_placed_by_file(1000));
  EXPECT_FALSE(found.is_placed_by_file(named(t, "gpu 0000:03:00.0").id));
}

}  // namespace
}  // namespace libcomm
