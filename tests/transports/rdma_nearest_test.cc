// Which ports a rank uses, on machines that we do not have.
#include "tests/topology/written_file.h"
#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_world.h"
#include "transports/rdma/nearest.h"

namespace libcomm::test {
namespace {

using rdma::PortInfo;

std::vector<PortInfo> ports_of(const std::vector<std::string>& devices) {
  std::vector<PortInfo> ports;
  for (const std::string& device : devices) ports.emplace_back().device = device;
  return ports;
}
using Chosen = std::vector<size_t>;

TEST(RdmaNearest, PortsAreThoseOfTheNodeElseOfThePackageElseAll) {
  const Topology machine = from_file("rails.xml");
  const auto ports = ports_of({"mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"});
  EXPECT_EQ(rdma::nearest(machine, 0, ports), (Chosen{0, 1})) << "of two host bridges: in turn";
  EXPECT_EQ(rdma::nearest(machine, 1, ports), (Chosen{2}));
  EXPECT_EQ(rdma::nearest(machine, 2, ports), (Chosen{3}));
  EXPECT_EQ(rdma::nearest(machine, 3, ports), (Chosen{3})) << "its own node has none";
  EXPECT_EQ(rdma::nearest(machine, -1, ports), (Chosen{0, 1, 2, 3})) << "not bound";
  EXPECT_EQ(rdma::nearest(machine, 3, std::span(ports).first(3)), (Chosen{0, 1, 2}));
  EXPECT_EQ(rdma::nearest(machine, 1, std::span(ports).first(2)), (Chosen{0, 1}));
}

TEST(RdmaNearest, DistancesAreTheTopologys) {
  const Topology machine = from_file("rails.xml");
  const auto ports = ports_of({"mlx5_2"});
  EXPECT_EQ(rdma::distance_from(machine, 1, ports[0]), PathClass::kNuma);
  EXPECT_EQ(rdma::distance_from(machine, 0, ports[0]), PathClass::kSocket);
  EXPECT_EQ(rdma::distance_from(machine, 2, ports[0]), PathClass::kSystem);
}

TEST(RdmaNearest, APortIsFoundByItsAddressElseByItsNode) {
  const Topology machine = from_file("rails.xml");
  auto ports = ports_of({"renamed", "unlisted", "rxe0"});
  ports[0].pci = "0000:41:00.0";  // mlx5_2
  ports[1].numa_node = 0;
  EXPECT_EQ(rdma::distance_from(machine, 1, ports[0]), PathClass::kNuma);
  EXPECT_EQ(rdma::distance_from(machine, 3, ports[0]), PathClass::kSystem);
  EXPECT_EQ(rdma::distance_from(machine, 0, ports[1]), PathClass::kNuma);
  EXPECT_EQ(rdma::distance_from(machine, 1, ports[1]), PathClass::kSocket);
  EXPECT_EQ(rdma::distance_from(machine, 3, ports[2]), PathClass::kNuma) << "a software device";
}

#if COMM_TEST_PUGIXML
// rails.xml with this file over it.
Topology over_rails(const std::string& text) {
  const Written file("<system version=\"1\">" + text + "</system>");
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/rails.xml", 1);
  auto topology = file.read();
  unsetenv("HWLOC_XMLFILE");
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}

TEST(RdmaNearest, AFileTakesNoPortFromARankThatItSaysNothingOf) {
  const auto ports = ports_of({"mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"});
  // Node 3 has no port. Without the file it uses mlx5_3, which is in its package.
  const Topology one = over_rails("<cpu numaid=\"3\"><pci busid=\"0000:01:00.0\"/></cpu>");
  EXPECT_EQ(rdma::nearest(one, 3, ports), (Chosen{0, 3})) << "what is near by the file is first";
  EXPECT_EQ(rdma::nearest(one, 0, ports), (Chosen{1})) << "the first has moved away";
  EXPECT_EQ(rdma::nearest(one, 1, ports), (Chosen{2}));
  const Topology both = over_rails(
      "<cpu numaid=\"3\"><pci busid=\"0000:01:00.0\"/></cpu>"
      "<cpu numaid=\"2\"><pci busid=\"0000:81:00.0\"/></cpu>");
  EXPECT_EQ(rdma::nearest(both, 3, ports), (Chosen{0})) << "the file says where mlx5_3 is";
  const Topology other = over_rails("<cpu numaid=\"3\"><pci busid=\"0099:01:00.0\"/></cpu>");
  for (int node = -1; node < 4; ++node)
    EXPECT_EQ(rdma::nearest(other, node, ports), rdma::nearest(other.without_file(), node, ports));
}

TEST(RdmaNearest, AFileTakesNoPortFromARankByANodeThatTheMachineDoesNotHave) {
  const auto ports = ports_of({"mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"});
  for (const char* node : {"9", "-1"}) {
    const Topology machine =
        over_rails(fmt::format("<cpu numaid=\"{}\"><pci busid=\"0000:01:00.0\"/></cpu>"
                               "<cpu numaid=\"1\"><pci busid=\"0000:81:00.0\"/></cpu>",
                               node));
    EXPECT_EQ(rdma::nearest(machine, 0, ports), (Chosen{0, 1})) << node;
    EXPECT_EQ(rdma::nearest(machine, 1, ports), (Chosen{2, 3})) << node;
  }
}

#endif

class RdmaNearestRails : public OnRdmaDouble {
 protected:
  // The ports of two ranks that are bound to this node.
  static void expect_ports(int node, const std::vector<std::string>& names) {
    const auto bootstraps = loopback_bootstraps(2);
    const auto made = make_transports(bootstraps, {{}, {}}, nullptr, nullptr, node);
    for (const auto& transport : made) {
      ASSERT_TRUE(transport.is_ok()) << transport.status().to_string();
      ASSERT_NE(*transport, nullptr);
      std::vector<std::string> used;
      for (const PortInfo& port : (*transport)->ports()) used.push_back(port.name());
      EXPECT_EQ(used, names) << "bound to node " << node;
    }
  }
};

TEST_F(RdmaNearestRails, AChannelGoesOverThePortsThatAreNearestToWhereTheRankIsBound) {
  // hwloc reads the file by libxml2 in the ranks' threads: were it unloaded before they end, it
  // could not free what it keeps for each.
  ::dlopen("libxml2.so.2", RTLD_NOW | RTLD_NODELETE);
  const WithVariable name("RDMA_DOUBLE_NAME", "mlx5_");
  const WithVariable four("RDMA_DOUBLE_DEVICES", "4");
  const WithVariable machine("HWLOC_XMLFILE", COMM_TEST_DATA "/rails.xml");
  expect_ports(-1, {"mlx5_0:1", "mlx5_1:1", "mlx5_2:1", "mlx5_3:1"});
  expect_ports(0, {"mlx5_0:1", "mlx5_1:1"});
  expect_ports(3, {"mlx5_3:1"});
}

#if COMM_TEST_PUGIXML
// Four are used at most.
TEST_F(RdmaNearestRails, WhatAFilePutsNearIsAmongThePortsThatAreUsed) {
  ::dlopen("libxml2.so.2", RTLD_NOW | RTLD_NODELETE);
  const TempFolder folder;
  std::string flat = read_file(COMM_TEST_DATA "/flat_vm.xml");
  const std::string disk = "<object type=\"PCIDev\" gp_index=\"8\"";
  const size_t at = flat.find(disk);
  ASSERT_NE(at, flat.npos);
  for (int i = 5; i > 1; --i)
    flat.insert(at,
                fmt::format(R"(<object type="PCIDev" gp_index="{0}" pci_busid="0000:00:1{2}.0" )"
                            R"(pci_type="0200 [15b3:0000] [0000:0000] 00" pci_link_speed="0.0">)"
                            R"(<object type="OSDev" gp_index="{1}" name="mlx5_{2}" )"
                            R"(osdev_type="3"/></object>)",
                            100 + 2 * i, 101 + 2 * i, i));
  write_file(folder / "machine.xml", flat);
  write_file(folder / "topo.xml",
             "<system version=\"1\"><cpu numaid=\"0\"><pci busid=\"0000:00:15.0\">"
             "<nic><net name=\"mlx5_5\"/></nic></pci></cpu></system>");
  const WithVariable name("RDMA_DOUBLE_NAME", "mlx5_");
  const WithVariable six("RDMA_DOUBLE_DEVICES", "6");
  const WithVariable machine("HWLOC_XMLFILE", (folder / "machine.xml").c_str());
  expect_ports(0, {"mlx5_0:1", "mlx5_1:1", "mlx5_2:1", "mlx5_3:1"});
  const WithVariable file("COMM_TOPO_FILE", (folder / "topo.xml").c_str());
  expect_ports(0, {"mlx5_0:1", "mlx5_1:1", "mlx5_2:1", "mlx5_5:1"});
}
#endif

}  // namespace
}  // namespace libcomm::test
