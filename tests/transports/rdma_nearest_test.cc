// Which ports a rank uses, on machines that we do not have.
#include "tests/topology/machines.h"
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

class RdmaNearestRails : public OnRdmaDouble {};

TEST_F(RdmaNearestRails, AChannelGoesOverThePortsThatAreNearestToWhereTheRankIsBound) {
  // hwloc reads the file by libxml2 in the ranks' threads: were it unloaded before they end, it
  // could not free what it keeps for each.
  ::dlopen("libxml2.so.2", RTLD_NOW | RTLD_NODELETE);
  const WithVariable name("RDMA_DOUBLE_NAME", "mlx5_");
  const WithVariable four("RDMA_DOUBLE_DEVICES", "4");
  const WithVariable machine("HWLOC_XMLFILE", COMM_TEST_DATA "/rails.xml");
  const std::vector<std::pair<int, std::vector<std::string>>> expected = {
      {-1, {"mlx5_0:1", "mlx5_1:1", "mlx5_2:1", "mlx5_3:1"}},
      {0, {"mlx5_0:1", "mlx5_1:1"}},
      {3, {"mlx5_3:1"}},
  };
  for (const auto& [node, names] : expected) {
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
}

}  // namespace
}  // namespace libcomm::test
