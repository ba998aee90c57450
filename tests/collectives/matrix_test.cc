// The matrix: every collective with every type, operator, count and number of ranks, in and out of
// place, in plain and shared memory, as threads and as processes, in shared memory and over
// sockets.
#include <gtest/gtest.h>

#include "tests/collectives/sweep.h"

namespace matrix {
namespace {

using world::Kind;
using world::kSanitized;
using world::World;

class Ranks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(From1To9, Ranks, testing::Range(1, 10));

TEST_P(Ranks, AsThreadsGetExactResultsFromEveryCollective) {
  const int nranks = GetParam();
  // In full where it is cheap; elsewhere a part, a different one for each number of ranks.
  const bool full = nranks <= 3 || nranks == 5;
  std::vector<Call> calls = sweep(nranks, 1000 * static_cast<uint64_t>(nranks), full);
  if (!full) calls = thinned(calls, 3);
  if (kSanitized) calls = thinned(calls, 3);
  perform_all({.nranks = nranks}, calls);
}

TEST_P(Ranks, AsProcessesOverSocketsGetExactResults) {
  const int nranks = GetParam();
  std::vector<Call> calls = sweep(nranks, 2000 * static_cast<uint64_t>(nranks), false);
  calls = thinned(calls, kSanitized ? 12 : 3);
  perform_all(
      {.nranks = nranks, .kind = Kind::kProcesses, .environment = {{"COMM_SHM_DISABLE", "1"}}},
      calls);
}

TEST(Processes, OnOneHostGetExactResultsFromEveryCollective) {
  for (const int nranks : {2, 3, 5, 8})
    perform_all(
        {.nranks = nranks, .kind = Kind::kProcesses},
        thinned(sweep(nranks, 31 * static_cast<uint64_t>(nranks), true), kSanitized ? 8 : 2));
}

TEST(Wait, OfEveryKindGivesExactResults) {
  for (const char* wait : {"spin", "adaptive", "block"})
    for (const char* no_shm : {"0", "1"})
      perform_all({.nranks = 3, .environment = {{"COMM_WAIT", wait}, {"COMM_SHM_DISABLE", no_shm}}},
                  thinned(sweep(3, 7, true), kSanitized ? 24 : 12));
}

TEST(Sockets, OfTheSixthFamilyGiveExactResults) {
  perform_all({.nranks = 3,
               .kind = Kind::kProcesses,
               .environment = {{"COMM_SOCKET_FAMILY", "AF_INET6"},
                               {"COMM_SOCKET_IFNAME", "=lo"},
                               {"COMM_SHM_DISABLE", "1"}}},
              thinned(sweep(3, 11, true), 8));
}

TEST(Sockets, SeveralPerPeerAndHelperThreadsGiveExactResults) {
  perform_all({.nranks = 3,
               .environment = {{"COMM_SOCKET_NTHREADS", "2"},
                               {"COMM_NSOCKS_PERTHREAD", "2"},
                               {"COMM_SHM_DISABLE", "1"}}},
              thinned(sweep(3, 13, true), 8));
}

// Megabytes per message: many segments and slices.
TEST(Messages, OfMegabytesAreExact) {
  uint64_t seed = 99;
  std::vector<Call> calls;
  for (int c = 0; c < kNumCollectives; ++c) {
    Call call;
    call.collective = static_cast<Collective>(c);
    call.type = c % 2 == 0 ? commFloat32 : commInt32;
    call.count = kSanitized ? 70001 : c % 3 == 0 ? 700001 : 150001;
    call.root = c % 3;
    call.in_place = c % 4 == 0;
    call.memory = static_cast<Memory>(c % 3);
    call.seed = ++seed;
    calls.push_back(call);
  }
  perform_all({.nranks = 3}, calls);
  perform_all({.nranks = 3, .kind = Kind::kProcesses, .hosts = {2, 1}}, calls);
}

}  // namespace
}  // namespace matrix
