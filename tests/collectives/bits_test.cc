// Same inputs, same bits: on every rank, run after run, in plain and shared memory, over shared
// memory and sockets. Data is random floats, whose sums depend on the order of addition.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/collectives/call.h"

namespace matrix {
namespace {

using world::kSanitized;
using world::Rank;
using world::World;

constexpr commDataType_t kTypes[] = {commFloat16, commBfloat16, commFloat32, commFloat64,
                                     commFloat8e5m2};
constexpr size_t kCounts[] = {5, 1000, kSanitized ? 9001 : 100003};

// Bits of numbers between 1 and 2, or a type's small numbers: no NaN, no infinity, many roundings.
uint64_t random_bits(commDataType_t type, int rank, size_t index) {
  const uint64_t h = elements::hash(static_cast<uint64_t>(rank) + 77, index);
  switch (type) {
    case commFloat16:
      return 0x3c00 | (h & 0x3ff) | (h >> 20 & 1) << 15;
    case commBfloat16:
      return 0x3f80 | (h & 0x7f) | (h >> 20 & 1) << 15;
    case commFloat32:
      return 0x3f800000 | (h & 0x7fffff) | (h >> 30 & 1) << 31;
    case commFloat64:
      return 0x3ff0000000000000 | (h >> 12) | (h & 1) << 63;
    default:
      return 0x30 | (h & 0xf) | (h >> 20 & 1) << 7;
  }
}

uint64_t hash_of(const unsigned char* data, size_t bytes) {
  uint64_t h = bytes;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    h = elements::hash(h, word);
  }
  for (size_t i = bytes / 8 * 8; i < bytes; ++i) h = elements::hash(h, data[i]);
  return h;
}

// A hash of each result of an all-reduce, an all-gathered reduce-scatter and a broadcast reduce,
// the same on all ranks or a failure.
std::vector<uint64_t> results_of(const World& world, bool shared) {
  std::vector<std::vector<uint64_t>> hashes(static_cast<size_t>(world.nranks));
  world::run(world, [&](Rank& rank) {
    Arena arena;
    const auto n = static_cast<size_t>(rank.nranks);
    for (const commDataType_t type : kTypes) {
      const size_t size = elements::size_of(type);
      for (const size_t count : kCounts) {
        unsigned char* in =
            arena.region(shared ? Memory::kShared : Memory::kPlain, 0, n * count * size + 64) +
            3 * size;
        unsigned char* out =
            arena.region(shared ? Memory::kShared : Memory::kPlain, 1, n * count * size + 64) +
            size;
        for (size_t i = 0; i < n * count; ++i) {
          const uint64_t bits = random_bits(type, rank.rank, i);
          std::memcpy(in + i * size, &bits, size);
        }
        const auto note = [&](size_t bytes) {
          hashes[static_cast<size_t>(rank.rank)].push_back(hash_of(out, bytes));
        };
        COMM_OK(rank, commAllReduce(in, out, count, type, commSum, rank.comm, nullptr));
        note(count * size);
        COMM_OK(rank, commAllReduce(in, out, count, type, commAvg, rank.comm, nullptr));
        note(count * size);
        unsigned char* mine = out + static_cast<size_t>(rank.rank) * count * size;
        COMM_OK(rank, commReduceScatter(in, mine, count, type, commSum, rank.comm, nullptr));
        COMM_OK(rank, commAllGather(mine, out, count, type, rank.comm, nullptr));
        note(n * count * size);
        const int root = static_cast<int>(count % n);
        COMM_OK(rank, commReduce(in, out, count, type, commSum, root, rank.comm, nullptr));
        COMM_OK(rank, commBcast(out, count, type, root, rank.comm, nullptr));
        note(count * size);
      }
    }
  });
  for (int r = 1; r < world.nranks; ++r)
    EXPECT_EQ(hashes[static_cast<size_t>(r)], hashes[0])
        << "rank " << r << " of " << world.to_string();
  return hashes[0];
}

class SameBits : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Algorithm, SameBits,
                         testing::Values("ring", "hd", "rd", "tree", "oneshot", "twoshot", "star",
                                         "hierarchical"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(SameBits, WhateverMemoryOrTransportCarriesThem) {
  for (const int nranks : {3, 4}) {
    if (kSanitized && nranks == 4) continue;
    World world{.nranks = nranks, .environment = {{"COMM_ALGO", GetParam()}}};
    const auto first = results_of(world, false);
    EXPECT_EQ(results_of(world, true), first) << "commMemAlloc memory, " << world.to_string();
    world.environment.push_back({"COMM_SHM_DISABLE", "1"});
    EXPECT_EQ(results_of(world, false), first) << "sockets, " << world.to_string();
  }
}

TEST(SameBitsByDefault, RunAfterRun) {
  for (const int nranks : {2, 5}) {
    World world{.nranks = nranks};
    const auto first = results_of(world, false);
    EXPECT_EQ(results_of(world, true), first) << "commMemAlloc memory, " << world.to_string();
    EXPECT_EQ(results_of(world, false), first) << "again, " << world.to_string();
  }
}

// Staged, or read and written where it is: by threads, and in memory that is mapped.
TEST(SameBitsByDefault, WhicheverPathCarriesThem) {
  for (const int nranks : {2, 3, 4}) {
    if (kSanitized && nranks == 4) continue;
    World world{.nranks = nranks, .environment = {{"COMM_LL_THRESHOLD", "0"}}};
    const auto first = results_of(world, false);
    EXPECT_EQ(results_of(world, true), first) << "commMemAlloc memory, " << world.to_string();
    world.environment.push_back({"COMM_CMA_DISABLE", "1"});
    EXPECT_EQ(results_of(world, false), first) << "staged, " << world.to_string();
    world.environment.push_back({"COMM_NTHREADS", "2"});
    EXPECT_EQ(results_of(world, false), first) << "helper threads, " << world.to_string();
  }
}

}  // namespace
}  // namespace matrix
