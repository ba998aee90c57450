// The matrix: every collective with every type, operator, count and number of ranks, in and out of
// place, in plain and shared memory, over every algorithm and transport.
//
// Not the full product: sweep() meets every pair (collective, type), (collective, operator) and
// (collective, count) for its world, and rotates everything else.
#include <gtest/gtest.h>

#include "tests/collectives/call.h"

namespace matrix {
namespace {

using elements::Op;
using world::Kind;
using world::kSanitized;
using world::Rank;
using world::World;

constexpr size_t kCounts[] = {0, 1, 2, 3, 7, 63, 64, 65, 1000, 4097};
constexpr size_t kLargeCounts[] = {100003};
constexpr size_t kSmallCounts[] = {1, 7, 64, 1000, 4097};  // rotated through by types and operators

// All calls of one world. Every rank makes the same list.
std::vector<Call> sweep(int nranks, uint64_t salt, bool large) {
  std::vector<Call> calls;
  uint64_t turn = salt;
  const auto add = [&](Collective collective, commDataType_t type, Op op, size_t count) {
    ++turn;
    Call call;
    call.collective = collective;
    call.type = type;
    call.op = op;
    call.count = count;
    call.seed = turn;
    const uint64_t h = elements::hash(turn, 1);
    call.root = static_cast<int>(h % static_cast<uint64_t>(nranks));
    call.in_place = (h >> 20 & 1) != 0;
    call.memory = static_cast<Memory>((h >> 30) % 3);
    calls.push_back(call);
  };
  const auto type_of = [&](Op op) {
    for (uint64_t i = turn;; ++i) {
      const auto type = static_cast<commDataType_t>(elements::hash(i, 2) % commNumTypes);
      if (elements::is_defined(op, type)) return type;
    }
  };
  const auto small = [&] {
    return kSmallCounts[elements::hash(turn, 3) % std::size(kSmallCounts)];
  };
  for (int c = 0; c < kNumCollectives; ++c) {
    const auto collective = static_cast<Collective>(c);
    for (int type = 0; type < commNumTypes; ++type)
      add(collective, static_cast<commDataType_t>(type), Op::kSum, small());
    if (reduces(collective))
      for (int op = 0; op < elements::kNumOps; ++op)
        add(collective, type_of(static_cast<Op>(op)), static_cast<Op>(op), small());
    for (const size_t count : kCounts) add(collective, type_of(Op::kSum), Op::kSum, count);
    if (large)
      for (const size_t count : kLargeCounts) add(collective, type_of(Op::kSum), Op::kSum, count);
  }
  return calls;
}

void perform_all(const World& world, const std::vector<Call>& calls) {
  world::run(world, [&](Rank& rank) {
    Arena arena;
    for (const Call& call : calls) {
      perform(rank, arena, call);
      COMM_OK(rank, commBarrier(rank.comm, nullptr));
    }
  });
}

// A part of the sweep: sanitizers slow everything down and look at other things than values.
std::vector<Call> thinned(std::vector<Call> calls, size_t keep_one_in) {
  std::vector<Call> kept;
  for (size_t i = 0; i < calls.size(); ++i)
    if (elements::hash(i, 5) % keep_one_in == 0) kept.push_back(calls[i]);
  return kept;
}

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
    call.count = c % 3 == 0 && !kSanitized ? 1200007 : 300007;
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
