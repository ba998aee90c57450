#include <numeric>
#include <random>

#include "tests/topology/machines.h"

namespace libcomm {
namespace {

using Order = std::vector<int>;

TEST(RingOrder, FollowsTheCoresOfTwoSocketsAndFourNodes) {
  const Topology t = two_sockets_four_nodes();
  // Eight ranks dealt out to the four nodes in turn, as some launchers do: 0 and 4 on node 0, ...
  std::vector<RankPlace> places;
  for (int rank = 0; rank < 8; ++rank) places.push_back(place_on(t, 0, rank % 4 * 4 + rank / 4));
  EXPECT_EQ(ring_order(places), (Order{0, 4, 1, 5, 2, 6, 3, 7}));
}

TEST(RingOrder, CrossesBetweenPackagesOnlyOncePerDirection) {
  const Topology t = two_sockets_four_nodes();
  std::vector<RankPlace> places;
  for (int rank = 0; rank < 16; ++rank) places.push_back(place_on(t, 0, rank * 7 % 16));
  const Order order = ring_order(places);
  int packages = 0, nodes = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const RankPlace& a = places[static_cast<size_t>(order[i])];
    const RankPlace& b = places[static_cast<size_t>(order[(i + 1) % order.size()])];
    packages += a.package != b.package;
    nodes += a.numa_node != b.numa_node;
  }
  EXPECT_EQ(packages, 2);
  EXPECT_EQ(nodes, 4);
}

TEST(RingOrder, KeepsHostsTogetherWhenRanksAlternate) {
  // Six ranks on three hosts, round robin.
  std::vector<RankPlace> places(6);
  for (int rank = 0; rank < 6; ++rank) places[static_cast<size_t>(rank)].host = rank % 3;
  EXPECT_EQ(ring_order(places), (Order{0, 3, 1, 4, 2, 5}));
}

TEST(RingOrder, TakesHostsInTheOrderOfTheirLowestRankNotOfTheirNumber) {
  std::vector<RankPlace> places(5);
  const int hosts[] = {2, 0, 2, 1, 0};
  for (size_t rank = 0; rank < 5; ++rank) places[rank].host = hosts[rank];
  EXPECT_EQ(ring_order(places), (Order{0, 2, 1, 4, 3}));
}

TEST(RingOrder, HandlesUnevenHostsAndNodes) {
  const Topology uneven = from_file("uneven.xml");
  // Host 0: one rank on each of the six cores, backwards; host 1 has one rank, in the middle.
  std::vector<RankPlace> places;
  for (int core : {5, 4, 3}) places.push_back(place_on(uneven, 0, core));
  places.push_back({1, -1, -1, -1});
  for (int core : {2, 1, 0}) places.push_back(place_on(uneven, 0, core));
  // Node 0's three cores, node 1's one, package 1's two, then the other host.
  EXPECT_EQ(ring_order(places), (Order{6, 5, 4, 2, 1, 0, 3}));
}

TEST(RingOrder, GroupsUnboundRanksByPackageThenNode) {
  // Bound to nodes, as `numactl` does, not to cores; node numbers alternate between the packages.
  std::vector<RankPlace> places;
  for (int node : {3, 0, 1, 2, 3, 0}) places.push_back({0, -1, node, node % 2});
  EXPECT_EQ(ring_order(places), (Order{1, 5, 3, 2, 0, 4}));
}

TEST(RingOrder, IsRankOrderWhenNothingIsKnown) {
  EXPECT_EQ(ring_order(std::vector<RankPlace>(4)), (Order{0, 1, 2, 3}));
  EXPECT_TRUE(ring_order({}).empty());
}

TEST(RingOrder, IsAPermutationForAnyPlaces) {
  std::mt19937 random(7);
  const auto any = [&] { return static_cast<int>(random() % 7) - 2; };
  for (int round = 0; round < 200; ++round) {
    std::vector<RankPlace> places(random() % 40);
    for (RankPlace& p : places) p = {any(), any(), any(), any()};
    Order order = ring_order(places);
    std::sort(order.begin(), order.end());
    Order all(places.size());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(order, all);
  }
}

}  // namespace
}  // namespace libcomm
