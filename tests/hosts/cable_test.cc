// A cable that is cut in the middle of a run: every rank ends with an error that names a peer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <regex>

#include "tests/hosts/network.h"
#include "tests/hosts/team.h"

namespace libcomm::test {
namespace {

using ::testing::HasSubstr;

#define NEEDS(network) \
  if (!(network).problem().empty()) GTEST_SKIP() << (network).problem()

// Every rank of an endless run, once it goes, meets `fault` and ends by itself, with a text that
// names a rank.
void expect_ends(Team& team, size_t ranks, size_t count, const std::function<void()>& fault,
                 const char* call = "allreduce") {
  team.set("COMM_TIMEOUT", "3");
  team.start({.call = call, .count = count, .times = 0});
  ASSERT_TRUE(team.all_say("first\n")) << team.all_said();
  fault();
  // Far more than COMM_TIMEOUT on a busy machine; a rank that hangs is killed then: status 137.
  team.wait(45);
  for (size_t rank = 0; rank < ranks; ++rank) {
    EXPECT_EQ(team.status(static_cast<int>(rank)), 2) << team.all_said();
    const std::string said = team.said(static_cast<int>(rank));
    const size_t at = said.find("error: ");
    ASSERT_NE(at, std::string::npos) << team.all_said();
    EXPECT_TRUE(std::regex_search(said.substr(at), std::regex("rank [0-9]+"))) << team.all_said();
  }
}

// All blame the network.
void expect_unreachable(const Team& team, int ranks) {
  for (int rank = 0; rank < ranks; ++rank)
    EXPECT_THAT(team.said(rank), HasSubstr(") does not answer any more")) << team.all_said();
}

TEST(Cable, CutBetweenTwoHostsEndsBoth) {
  Network network(2);
  NEEDS(network);
  Team team(network, {0, 1});
  expect_ends(team, 2, 1 << 18, [&] { network.cut({1, 0}); });
  EXPECT_THAT(team.said(0), HasSubstr("the host of rank 1 (pid ")) << team.all_said();
  EXPECT_THAT(team.said(0), HasSubstr(") does not answer any more: check its power"))
      << team.said(0);
  EXPECT_THAT(team.said(1), HasSubstr("the host of rank 0 (pid ")) << team.all_said();
}

TEST(Cable, CutFromOneOfThreeHostsEndsAll) {
  Network network(3);
  NEEDS(network);
  Team team(network, {0, 0, 1, 2});
  expect_ends(team, 4, 1 << 18, [&] { network.cut({2, 0}); });
  // Rank 1 waits for rank 0, which is there; so may rank 2.
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_THAT(team.said(rank), HasSubstr("the host of rank 3 (pid ")) << team.all_said();
  EXPECT_THAT(team.said(3), HasSubstr("look at the network interface of its own host first"))
      << team.all_said();
}

TEST(Cable, CutDuringSmallCallsEndsAll) {
  Network network(2);
  NEEDS(network);
  Team team(network, {0, 1, 1});
  expect_ends(team, 3, 2, [&] { network.cut({0, 0}); });
  expect_unreachable(team, 3);
}

// The communicator that waits first has lost nothing; it waits for a rank that makes no call.
TEST(Cable, CutFromOneOfTwoCommunicatorsOfAGroupIsFound) {
  Network network(2);
  NEEDS(network);
  Team team(network, {0, 0, 1});
  const auto cut = [&] { network.cut({1, 0}); };
  expect_ends(team, 3, 1 << 18, cut, "together");
  EXPECT_THAT(team.said(0), HasSubstr("the host of rank 2 (pid ")) << team.all_said();
}

TEST(Cable, AnInterfaceThatIsTakenAwayEndsAll) {
  Network network(2);
  NEEDS(network);
  Team team(network, {0, 1, 1});
  expect_ends(team, 3, 1 << 18, [&] { network.remove({1, 0}); });
  expect_unreachable(team, 3);
}

TEST(Cable, CutOfACableThatNobodyUsesHarmsNobody) {
  Network network(2, Network::Family::kV4, 2);
  NEEDS(network);
  Team team(network, {0, 1});
  team.set("COMM_SOCKET_IFNAME", "=eth0");
  team.start({.call = "allreduce", .count = 1000, .times = 2000});
  ASSERT_TRUE(team.all_say("first\n")) << team.all_said();
  network.cut({1, 1});
  team.wait();
  EXPECT_TRUE(team.all_right()) << team.all_said();
}

}  // namespace
}  // namespace libcomm::test
