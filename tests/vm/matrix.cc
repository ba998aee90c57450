// The matrix of tests/collectives between ranks that take each other for other hosts, so that all
// bytes go through the network: whichever transport the environment allows.
#include <gtest/gtest.h>

#include "tests/collectives/sweep.h"

namespace matrix {
namespace {

class HostsOfOneRank : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(From2To8, HostsOfOneRank, testing::Range(2, 9));

TEST_P(HostsOfOneRank, GetExactResultsFromEveryCollective) {
  const int nranks = GetParam();
  // More ranks, fewer calls: an emulated machine has two slow CPUs.
  perform_all({.nranks = nranks,
               .kind = world::Kind::kProcesses,
               .hosts = std::vector<int>(static_cast<size_t>(nranks), 1)},
              thinned(sweep(nranks, 5000 + static_cast<uint64_t>(nranks), false),
                      static_cast<size_t>(3 * nranks)));
}

}  // namespace
}  // namespace matrix
