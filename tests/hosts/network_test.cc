// Which network the library takes: address families, interfaces that are dead or not wanted.
#include "tests/hosts/network.h"

#include <gtest/gtest.h>

#include "tests/hosts/team.h"

namespace libcomm::test {
namespace {

constexpr size_t kCount = 1 << 18;
constexpr uint64_t kBytes = 4 * kCount;
constexpr uint64_t kSlack = 64 * 1024;

#define NEEDS(network) \
  if (!(network).problem().empty()) GTEST_SKIP() << (network).problem()

void expect_right(Team& team) {
  team.start({.call = "allreduce", .count = kCount, .times = 2});
  team.wait();
  EXPECT_TRUE(team.all_right()) << team.all_said();
}

class Meetings : public testing::TestWithParam<Team::Meet> {};

TEST_P(Meetings, WorkOverV4) {
  const Network network(2);
  NEEDS(network);
  Team team(network, {0, 1, 1});
  team.meet_by(GetParam());
  expect_right(team);
  EXPECT_GE(network.sent({0, 0}), 2 * kBytes);
}

TEST_P(Meetings, WorkOverV6) {
  const Network network(2, Network::Family::kV6);
  NEEDS(network);
  Team team(network, {0, 1, 1});
  team.meet_by(GetParam());
  team.set("COMM_SOCKET_FAMILY", "AF_INET6");
  expect_right(team);
  EXPECT_GE(network.sent({0, 0}), 2 * kBytes);
}

TEST_P(Meetings, PassOverAnInterfaceThatIsUpButDead) {
  Network network(2, Network::Family::kV4, 2);
  NEEDS(network);
  network.make_dead(0);  // eth0, the first that the library meets
  NEEDS(network);
  Team team(network, {0, 1, 1});
  team.meet_by(GetParam());
  team.meet_over(1);
  expect_right(team);
  EXPECT_GE(network.sent({0, 1}), 2 * kBytes);
}

TEST_P(Meetings, UseNoInterfaceThatIsExcluded) {
  const Network network(2, Network::Family::kV4, 2);
  NEEDS(network);
  for (const int excluded : {0, 1}) {
    const int used = 1 - excluded;
    Team team(network, {0, 1});
    team.meet_by(GetParam());
    team.meet_over(used);
    team.set("COMM_SOCKET_IFNAME", "^eth" + std::to_string(excluded));
    const uint64_t before[] = {network.sent({0, excluded}), network.sent({0, used})};
    expect_right(team);
    EXPECT_LE(network.sent({0, excluded}), before[0] + 4096);
    EXPECT_GE(network.sent({0, used}), before[1] + 2 * kBytes);
  }
}

INSTANTIATE_TEST_SUITE_P(By, Meetings, testing::Values(Team::Meet::kAddress, Team::Meet::kUniqueId),
                         [](const auto& test) {
                           return test.param == Team::Meet::kAddress ? "Address" : "UniqueId";
                         });

TEST(Networks, ARankWithoutTheWantedInterfaceSaysWhichItHas) {
  const Network network(2);
  NEEDS(network);
  Team team(network, {0, 1});
  team.set("COMM_SOCKET_IFNAME", "=ib0");
  team.set("COMM_BOOTSTRAP_TIMEOUT", "5");
  team.start({});
  team.wait();
  EXPECT_EQ(team.status(0), 2) << team.all_said();
  EXPECT_NE(team.said(0).find("COMM_SOCKET_IFNAME==ib0 matches none of: "), std::string::npos)
      << team.all_said();
  EXPECT_NE(team.said(0).find("eth0"), std::string::npos) << team.all_said();
}

TEST(Networks, ARankWithAnotherSecretStaysOutside) {
  const Network network(2);
  NEEDS(network);
  Team team(network, {0, 1});
  team.give_wrong_secret(1);
  team.set("COMM_BOOTSTRAP_TIMEOUT", "6");  // rank 1 gives up after 3 s
  team.start({});
  team.wait();
  for (const int rank : {0, 1}) EXPECT_EQ(team.status(rank), 2) << team.all_said();
  EXPECT_NE(team.said(0).find("did not prove the secret"), std::string::npos) << team.all_said();
  EXPECT_NE(team.said(1).find("secret"), std::string::npos) << team.all_said();
}

}  // namespace
}  // namespace libcomm::test
