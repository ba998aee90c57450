#include "src/topology/path_model.h"
#include "tests/topology/machines.h"

namespace libcomm {
namespace {

PathClass between(const Topology& t, const std::string& a, const std::string& b) {
  const auto find = [&](const std::string& name) {
    for (const Device& device : t.devices())
      if (device.name == name) return device.id;
    ADD_FAILURE() << "no device " << name;
    return -1;
  };
  // A path has no direction.
  EXPECT_EQ(t.path(find(a), find(b)).path, t.path(find(b), find(a)).path);
  return t.path(find(a), find(b)).path;
}

TEST(Paths, BetweenCoresFollowCachesNodesAndPackages) {
  const Topology t = two_sockets_four_nodes();
  EXPECT_EQ(t.path(0, 0).path, PathClass::kSelf);
  EXPECT_EQ(t.path(0, 3).path, PathClass::kCache);
  EXPECT_EQ(t.path(0, 4).path, PathClass::kSocket);
  EXPECT_EQ(t.path(0, 8).path, PathClass::kSystem);
}

TEST(Paths, WithoutASharedCacheAreThoseOfTheNumaNode) {
  const Topology t = synthetic("pack:1 numa:1 l2:2 core:1 pu:2");
  EXPECT_EQ(t.path(0, 1).path, PathClass::kNuma) << "a private L2 cache is not shared";
  const Topology pairs = synthetic("pack:1 numa:1 l2:2 core:2 pu:1");
  EXPECT_EQ(pairs.path(0, 1).path, PathClass::kCache);
  EXPECT_EQ(pairs.path(0, 2).path, PathClass::kNuma);
}

TEST(Paths, BetweenDevicesFollowPcie) {
  const Topology t = from_file("switches.xml");
  EXPECT_EQ(between(t, "eth0", "gpu 0000:03:00.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "eth1", "gpu 0000:07:00.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "eth0", "gpu 0000:07:00.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "eth0", "nvme0n1"), PathClass::kRoot);
  EXPECT_EQ(between(t, "eth0", "eth2"), PathClass::kSocket) << "another host bridge, same package";
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kSystem);
}

TEST(Paths, TakeTwoNamesOfOnePciFunctionForOneDevice) {
  EXPECT_EQ(between(from_file("switches.xml"), "eth0", "mlx5_0"), PathClass::kSelf);
}

TEST(Paths, BetweenCoresAndDevicesFollowTheNumaNode) {
  const Topology t = from_file("switches.xml");
  EXPECT_EQ(between(t, "core 1", "eth0"), PathClass::kNuma);
  EXPECT_EQ(between(t, "core 2", "eth0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "core 2", "gpu 0000:81:00.0"), PathClass::kNuma);
}

TEST(Paths, ToUnknownDevicesAreTheFarthestOfTheMachine) {
  const Topology t = two_sockets_four_nodes();
  EXPECT_EQ(t.path(-1, 0).path, PathClass::kSystem);
  EXPECT_EQ(t.path(0, 1000).path, PathClass::kSystem);
}

TEST(Paths, AreBoundByTheSlowerLinkAndCostMoreAtDevices) {
  const Topology t = from_file("switches.xml");
  const int eth0 = t.find_device(DeviceKind::kNetwork, "eth0");
  const int eth2 = t.find_device(DeviceKind::kNetwork, "eth2");
  const int gpu = t.find_device(DeviceKind::kGpu, "gpu 0000:03:00.0");
  const int far_gpu = t.find_device(DeviceKind::kGpu, "gpu 0000:81:00.0");
  EXPECT_NEAR(t.path(eth0, gpu).gbytes_per_second, 15.75, 0.01);
  EXPECT_NEAR(t.path(gpu, eth0).gbytes_per_second, 15.75, 0.01);
  EXPECT_DOUBLE_EQ(t.path(eth2, gpu).gbytes_per_second, kUnknownPcieGbs);
  EXPECT_DOUBLE_EQ(t.path(gpu, far_gpu).gbytes_per_second, 20.0) << "the processors' link";
  EXPECT_DOUBLE_EQ(t.path(0, gpu).latency_us,
                   model_of(PathClass::kNuma).latency_us + kDeviceEndLatencyUs);
  EXPECT_DOUBLE_EQ(t.path(eth0, gpu).latency_us,
                   model_of(PathClass::kPcieSwitch).latency_us + 2 * kDeviceEndLatencyUs);
}

TEST(Paths, GetDearerWithEveryClass) {
  for (size_t i = 1; i < std::size(kPathModels); ++i) {
    EXPECT_GT(kPathModels[i].latency_us, kPathModels[i - 1].latency_us);
    EXPECT_STRNE(name_of(kPathModels[i].path), name_of(kPathModels[i - 1].path));
    EXPECT_LE(kPathModels[i].core_gbs, kPathModels[i - 1].core_gbs);
    EXPECT_GT(kPathModels[i].core_gbs, 0);
    if (kPathModels[i].path == PathClass::kNvlink) continue;  // of each link
    const size_t before = kPathModels[i - 1].path == PathClass::kNvlink ? i - 2 : i - 1;
    EXPECT_LE(kPathModels[i].dma_gbs, kPathModels[before].dma_gbs);
  }
}

TEST(Paths, BetweenRanksComeFromExchangedPlacesAlone) {
  const RankPlace bound{0, 3, 1, 0};
  EXPECT_EQ(path_between(bound, {1, 3, 1, 0}).path, PathClass::kNetwork);
  EXPECT_EQ(path_between(bound, {0, 3, 1, 0}).path, PathClass::kSelf);
  EXPECT_EQ(path_between(bound, {0, 2, 1, 0}).path, PathClass::kNuma);
  EXPECT_EQ(path_between(bound, {0, 0, 0, 0}).path, PathClass::kSocket);
  EXPECT_EQ(path_between(bound, {0, 8, 2, 1}).path, PathClass::kSystem);
  const RankPlace unbound{0, -1, -1, -1};
  EXPECT_EQ(path_between(unbound, unbound).path, PathClass::kSystem);
}

}  // namespace
}  // namespace libcomm
