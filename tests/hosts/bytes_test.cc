// Ranks on several hosts: right results, and as many bytes on the cables as the algorithm explains.
//
// What the kernel counts on a host's interface includes headers and acknowledgements, hence 1.5
// times the bytes of an algorithm as an upper limit; a lower limit is exact.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/hosts/network.h"
#include "tests/hosts/team.h"

namespace libcomm::test {
namespace {

constexpr size_t kCount = 1 << 20;
constexpr double kBytes = 4.0 * kCount;  // of one rank's block
// Setting a group up, per host: handshakes, facts, news.
constexpr double kSlack = 256 * 1024;

#define NEEDS(network) \
  if (!(network).problem().empty()) GTEST_SKIP() << (network).problem()

// Sent and received: each host's traffic is between the limits, in blocks.
void expect_blocks(const Network& network, Wire wire, double sent, double received) {
  const auto check = [&](const char* what, double bytes, double blocks) {
    EXPECT_GE(bytes, blocks * kBytes) << what << " by host " << wire.host;
    EXPECT_LE(bytes, 1.5 * blocks * kBytes + kSlack) << what << " by host " << wire.host;
  };
  check("sent", static_cast<double>(network.sent(wire)), sent);
  check("received", static_cast<double>(network.received(wire)), received);
}

struct Spread {
  const char* name;
  std::vector<int> hosts;  // of each rank
  int nhosts;
};

class Spreads : public testing::TestWithParam<Spread> {};

TEST_P(Spreads, AllReduceCrossesAsLittleAsItCan) {
  const Network network(GetParam().nhosts);
  NEEDS(network);
  Team team(network, GetParam().hosts);
  team.start({.call = "allreduce", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  // A ring over hosts: every host gets rid of, and gets, 2(H-1)/H of the vector.
  const double least = 2.0 * (GetParam().nhosts - 1) / GetParam().nhosts;
  for (int host = 0; host < GetParam().nhosts; ++host)
    expect_blocks(network, {host, 0}, least, least);
}

TEST_P(Spreads, AllToAllSendsEveryBlockOnce) {
  const Network network(GetParam().nhosts);
  NEEDS(network);
  Team team(network, GetParam().hosts);
  team.start({.call = "alltoall", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  for (int host = 0; host < GetParam().nhosts; ++host) {
    const auto here = std::count(GetParam().hosts.begin(), GetParam().hosts.end(), host);
    const auto elsewhere = static_cast<long>(GetParam().hosts.size()) - here;
    const auto blocks = static_cast<double>(here * elsewhere);
    expect_blocks(network, {host, 0}, blocks, blocks);
  }
}

TEST_P(Spreads, AllGatherVisitsEveryHostOnce) {
  const Network network(GetParam().nhosts);
  NEEDS(network);
  Team team(network, GetParam().hosts);
  team.start({.call = "allgather", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  // The ring follows locality, so it enters and leaves a host once, with all blocks but one.
  const auto blocks = static_cast<double>(GetParam().hosts.size()) - 1;
  for (int host = 0; host < GetParam().nhosts; ++host)
    expect_blocks(network, {host, 0}, blocks, blocks);
}

INSTANTIATE_TEST_SUITE_P(Hosts, Spreads,
                         testing::Values(Spread{"OneAndOne", {0, 1}, 2},
                                         Spread{"TwoAndOne", {0, 0, 1}, 2},
                                         Spread{"ThreeAndOne", {0, 1, 0, 0}, 2},
                                         Spread{"TwoOneAndOne", {0, 1, 0, 2}, 3},
                                         Spread{"FourHosts", {0, 1, 2, 3}, 4}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Bytes, BroadcastReachesEveryHostOnce) {
  const Network network(3);
  NEEDS(network);
  Team team(network, {0, 1, 0, 2});  // the root is the last
  team.start({.call = "broadcast", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  for (int host : {0, 1}) {
    const auto received = static_cast<double>(network.received({host, 0}));
    EXPECT_GE(received, kBytes);
    EXPECT_LE(received, 1.5 * kBytes + kSlack);
  }
  EXPECT_LE(static_cast<double>(network.received({2, 0})), 0.5 * kBytes) << "the root's host";
}

TEST(Bytes, HierarchicalCrossesLessThanARingOfInterleavedRanks) {
  const std::vector<int> interleaved = {0, 1, 0, 1};
  double sent[2];
  for (const bool ring : {false, true}) {
    const Network network(2);
    NEEDS(network);
    Team team(network, interleaved);
    team.set("COMM_ALGO", ring ? "allreduce:ring" : "allreduce:hierarchical");
    team.set("COMM_RINGS", "0 1 2 3");
    team.start({.call = "allreduce", .count = kCount});
    team.wait();
    ASSERT_TRUE(team.all_right()) << team.all_said();
    sent[ring] = static_cast<double>(network.sent({0, 0})) / kBytes;
  }
  // Every edge of the ring crosses: two a host, each with 2(4-1)/4 of the vector.
  EXPECT_GE(sent[1], 3.0);
  EXPECT_LE(sent[1], 4.5);
  EXPECT_GE(sent[0], 1.0);
  EXPECT_LE(sent[0], 1.6);
}

TEST(Bytes, NamespacesOfOneHostShareMemory) {
  // Without COMM_HOSTID these are containers of one machine that see different networks.
  const Network network(2);
  NEEDS(network);
  Team team(network, {0, 1, 0}, /*apart=*/false);
  team.start({.call = "allreduce", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  EXPECT_LE(static_cast<double>(network.sent({0, 0})), kSlack);
  EXPECT_LE(static_cast<double>(network.sent({1, 0})), kSlack);
}

TEST(Bytes, NamespacesOfOneHostUseTheCableWithoutSharedMemory) {
  const Network network(2);
  NEEDS(network);
  Team team(network, {0, 1}, /*apart=*/false);
  team.set("COMM_SHM_DISABLE", "1");
  team.start({.call = "allreduce", .count = kCount});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  expect_blocks(network, {0, 0}, 1, 1);
}

TEST(Bytes, SmallCallsCrossTooManyAtATime) {
  const Network network(3);
  NEEDS(network);
  Team team(network, {0, 1, 2, 1});
  team.start({.call = "allreduce", .count = 3, .times = 500});
  team.wait();
  ASSERT_TRUE(team.all_right()) << team.all_said();
  EXPECT_GE(network.sent({2, 0}), 500u * 12);
}

}  // namespace
}  // namespace libcomm::test
