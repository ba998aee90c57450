#include <fstream>
#include <set>
#include <sstream>

#include "tests/topology/machines.h"

namespace libcomm {
namespace {

TEST(Detect, CountsCoresNodesAndPackagesOfAMachineMadeUp) {
  const Topology t = two_sockets_four_nodes();
  EXPECT_EQ(t.packages(), 2);
  EXPECT_EQ(t.numa_nodes(), 4);
  EXPECT_EQ(t.cores(), 16);
  EXPECT_EQ(t.usable_cores().size(), 16u);
  EXPECT_FALSE(t.is_this_machine());
}

TEST(Detect, NamesACoreByItsFirstHardwareThread) {
  const Topology t = two_sockets_four_nodes();
  const int core = t.find_device(DeviceKind::kCore, "core 10");
  ASSERT_EQ(core, 5);
  EXPECT_EQ(t.devices()[5].os_index, 10);
  EXPECT_EQ(t.devices()[5].numa_node, 1);
  EXPECT_EQ(t.devices()[5].package, 0);
  EXPECT_EQ(t.find_device(DeviceKind::kCore, "core 11"), -1);
}

TEST(Detect, OrdersCoresByPackageAndNodeNotByTheirNumbers) {
  const Topology t = from_file("uneven.xml");
  std::vector<int> numbers;
  for (const Device& device : t.devices()) numbers.push_back(device.os_index);
  EXPECT_EQ(numbers, (std::vector<int>{0, 2, 4, 6, 1, 3}));
  EXPECT_EQ(t.devices()[3].numa_node, 1);
  EXPECT_EQ(t.devices()[4].package, 1);
}

TEST(Detect, TakesHardwareThreadsForCoresWhereNoCoresAreKnown) {
  const Topology t = synthetic("pack:1 pu:3");
  EXPECT_EQ(t.cores(), 3);
  EXPECT_EQ(t.find_device(DeviceKind::kCore, "core 2"), 2);
}

TEST(Detect, TakesAMachineWithoutPackagesForOnePackage) {
  const Topology t = synthetic("numa:2 core:2 pu:1");
  EXPECT_EQ(t.packages(), 1);
  EXPECT_EQ(t.path(0, 3).path, PathClass::kSocket);
}

TEST(Detect, FindsNicsGpusAndDisksWithAddressAndPlace) {
  const Topology t = from_file("switches.xml");
  const int nic = t.find_device(DeviceKind::kNetwork, "eth0");
  const int gpu = t.find_device(DeviceKind::kGpu, "gpu 0000:81:00.0");
  ASSERT_GE(nic, 0);
  ASSERT_GE(gpu, 0);
  ASSERT_GE(t.find_device(DeviceKind::kStorage, "nvme0n1"), 0);
  ASSERT_GE(t.find_device(DeviceKind::kNetwork, "mlx5_0"), 0);
  const Device& device = t.devices()[static_cast<size_t>(nic)];
  EXPECT_EQ(device.address, "0000:04:00.0");
  EXPECT_EQ(device.package, 0);
  EXPECT_EQ(device.numa_node, 0);
  // The PCIe link's: the interface of that name on this machine has nothing to say about it.
  EXPECT_NEAR(device.gbytes_per_second, 15.75, 0.01);
  EXPECT_EQ(t.devices()[static_cast<size_t>(gpu)].package, 1);
}

TEST(Detect, KeepsCoresThatTheFileForbidsButDoesNotOfferThem) {
  std::ifstream file(COMM_TEST_DATA "/uneven.xml");
  std::stringstream text;
  text << file.rdbuf();
  std::string xml = text.str();
  const std::string all = "allowed_cpuset=\"0x0000005f\"";
  const size_t at = xml.find(all);
  ASSERT_NE(at, std::string::npos);
  xml.replace(at, all.size(), "allowed_cpuset=\"0x00000003\"");
  const std::string path = testing::TempDir() + "comm_topology_allowed.xml";
  std::ofstream(path) << xml;
  const Topology t = machine("HWLOC_XMLFILE", path);
  std::remove(path.c_str());
  EXPECT_EQ(t.cores(), 6);
  EXPECT_EQ(t.usable_cores(), (std::vector<int>{0, 4}));  // CPUs 0 and 1
}

TEST(Detect, SaysWhichVariableCannotBeReadInsteadOfUsingThisMachine) {
  for (auto [variable, value] : {std::pair("HWLOC_XMLFILE", "/nonexistent/machine.xml"),
                                 std::pair("HWLOC_SYNTHETIC", "bogus:2")}) {
    setenv(variable, value, 1);
    const auto topology = detect();
    unsetenv(variable);
    ASSERT_FALSE(topology) << variable;
    EXPECT_EQ(topology.status().code(), Code::kSystem);
    EXPECT_NE(topology.status().message().find(fmt::format("{}={}", variable, value)),
              std::string::npos)
        << topology.status().message();
  }
}

TEST(Detect, RefusesAFileThatIsNotXml) {
  const std::string path = testing::TempDir() + "comm_topology_garbage.xml";
  std::ofstream(path) << "<topology><object type=\"Machine\" \0\xff garbage";
  setenv("HWLOC_XMLFILE", path.c_str(), 1);
  const auto topology = detect();
  unsetenv("HWLOC_XMLFILE");
  std::remove(path.c_str());
  ASSERT_FALSE(topology);
  EXPECT_EQ(topology.status().code(), Code::kSystem);
}

TEST(Detect, FindsAtLeastACoreOfThisMachineAndGivesEveryDeviceItsIndex) {
  const auto t = detect();
  ASSERT_TRUE(t) << t.status().to_string();
  EXPECT_TRUE(t->is_this_machine());
  EXPECT_FALSE(t->usable_cores().empty());
  for (size_t i = 0; i < t->devices().size(); ++i)
    EXPECT_EQ(t->devices()[i].id, static_cast<int>(i));
}

}  // namespace
}  // namespace libcomm
