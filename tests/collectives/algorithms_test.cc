// Every algorithm by name, and ranks on several pretended hosts: exact results whatever is forced.
#include <gtest/gtest.h>

#include "tests/collectives/sweep.h"

namespace matrix {
namespace {

using world::Kind;
using world::kSanitized;
using world::World;

class Algorithm : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Forced, Algorithm,
                         testing::Values("ring", "hd", "rd", "tree", "oneshot", "twoshot", "star",
                                         "pairwise", "bruck", "binomial", "hierarchical"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(Algorithm, GivesExactResultsInSharedMemory) {
  for (const int nranks : {2, 4, 7}) {
    const auto calls = thinned(sweep(nranks, 57 * static_cast<uint64_t>(nranks), nranks == 4),
                               kSanitized ? 24 : 5);
    perform_all({.nranks = nranks, .environment = {{"COMM_ALGO", GetParam()}}}, calls);
  }
}

TEST_P(Algorithm, GivesExactResultsOverSockets) {
  for (const int nranks : {3, 6}) {
    const auto calls =
        thinned(sweep(nranks, 91 * static_cast<uint64_t>(nranks), false), kSanitized ? 24 : 6);
    perform_all({.nranks = nranks,
                 .kind = Kind::kProcesses,
                 .environment = {{"COMM_ALGO", GetParam()}, {"COMM_SHM_DISABLE", "1"}}},
                calls);
  }
}

class Hosts : public testing::TestWithParam<std::vector<int>> {};
INSTANTIATE_TEST_SUITE_P(Uneven, Hosts,
                         testing::Values(std::vector<int>{1, 1}, std::vector<int>{3, 1},
                                         std::vector<int>{2, 2, 1}, std::vector<int>{1, 4, 2}));

TEST_P(Hosts, OfSeveralRanksGiveExactResults) {
  World world;
  world.kind = Kind::kProcesses;
  world.hosts = GetParam();
  world.nranks = 0;
  for (const int ranks : world.hosts) world.nranks += ranks;
  for (const char* algorithm : {"", "hierarchical", "ring", "tree"}) {
    world.environment = {{"COMM_ALGO", algorithm}};
    const auto seed =
        elements::hash(static_cast<uint64_t>(world.nranks), static_cast<uint64_t>(algorithm[0]));
    perform_all(world,
                thinned(sweep(world.nranks, seed % 100000, *algorithm == 0), kSanitized ? 24 : 4));
  }
}

}  // namespace
}  // namespace matrix
