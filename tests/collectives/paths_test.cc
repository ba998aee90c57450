// Every way through shared memory: at once and by windows, staged, mapped, read from another
// process and used by another thread. Exact results whichever it is.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/collectives/sweep.h"

namespace matrix {
namespace {

using world::Kind;
using world::kSanitized;
using world::World;

// Small calls by windows, too: every type, operator, root and odd count.
struct Way {
  const char* name;
  Kind kind;
  const char* cma_disable;
};
class Paths : public testing::TestWithParam<Way> {
 protected:
  World world(int nranks) const {
    return {
        .nranks = nranks,
        .kind = GetParam().kind,
        .environment = {{"COMM_LL_THRESHOLD", "0"}, {"COMM_CMA_DISABLE", GetParam().cma_disable}}};
  }
};
INSTANTIATE_TEST_SUITE_P(Of, Paths,
                         testing::Values(Way{"ThreadsInPlace", Kind::kThreads, "0"},
                                         Way{"ThreadsStaged", Kind::kThreads, "1"},
                                         Way{"ProcessesInPlace", Kind::kProcesses, "0"},
                                         Way{"ProcessesStaged", Kind::kProcesses, "1"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(Paths, ByWindowsGiveExactResults) {
  for (const int nranks : {2, 3, 5})
    perform_all(world(nranks), thinned(sweep(nranks, 400 * static_cast<uint64_t>(nranks), true),
                                       kSanitized ? 16 : 6));
}

// Windows of several sizes follow each other, and none is written while a slow rank still reads.
TEST_P(Paths, TakeTurnsWithoutTouchingEachOthersWindows) {
  std::vector<Call> calls;
  for (uint64_t i = 0; i < (kSanitized ? 60 : 200); ++i) {
    const uint64_t h = elements::hash(i, 17);
    Call call;
    call.collective = static_cast<Collective>(h % kNumCollectives);
    call.type = h >> 8 & 1 ? commFloat32 : commInt64;
    call.count = 1 + (h >> 16) % (kSanitized ? 20000 : 200000);
    call.root = static_cast<int>(h >> 40) % 3;
    call.in_place = h >> 50 & 1;
    call.memory = static_cast<Memory>((h >> 52) % 3);
    call.seed = i + 1;
    calls.push_back(call);
  }
  world::run(world(3), [&](world::Rank& rank) {
    Arena arena;
    for (const Call& call : calls) perform(rank, arena, call);
  });
}

// Blocks that just fill lines, lie in lines of their own or share one, in slots that have carried
// others before.
TEST(Lines, CarryBlocksOfEverySize) {
  constexpr size_t kData = 56;  // bytes of a line beside its flag
  std::vector<size_t> counts = {1};
  for (const size_t lines : {1, 2, 3, 8, 10, 16, 31, 32, 33})
    counts.insert(counts.end(), {lines * kData - 1, lines * kData, lines * kData + 1});
  for (const int nranks : {2, 3, 5, 9}) {
    const size_t n = static_cast<size_t>(nranks);
    std::vector<Call> calls;
    for (uint64_t i = 0; i < (kSanitized ? 150 : 600); ++i) {
      const uint64_t h = elements::hash(i, 23 + n);
      const size_t count = counts[(h >> 8) % counts.size()];
      Call call;
      call.collective = static_cast<Collective>(h % kNumCollectives);
      call.type = commInt8;
      // So many bytes in a block, or in all of them.
      call.count = h >> 48 & 1 ? count : (count + n - 1) / n;
      call.root = static_cast<int>(h >> 40) % nranks;
      call.in_place = h >> 50 & 1;
      call.seed = i + 1;
      calls.push_back(call);
      if (h >> 51 & 1) calls.push_back(call);  // as a repeated call
    }
    world::run({.nranks = nranks, .kind = Kind::kProcesses}, [&](world::Rank& rank) {
      Arena arena;
      for (const Call& call : calls) perform(rank, arena, call);
    });
  }
}

// Middle sizes go by windows after a call on memory that all ranks can reach, and at once after one
// on memory that some cannot: right results while that changes from call to call and from rank to
// rank.
TEST(Reach, MayChangeFromCallToCall) {
  struct Sort {
    Kind kind;
    int nranks;
  };
  for (const Sort& sort : {Sort{Kind::kProcesses, 2}, Sort{Kind::kProcesses, 3},
                           Sort{Kind::kThreads, 2}, Sort{Kind::kThreads, 3}}) {
    world::run({.nranks = sort.nranks, .kind = sort.kind}, [&](world::Rank& rank) {
      Arena arena;
      for (uint64_t i = 0; i < (kSanitized ? 40 : 200); ++i) {
        const uint64_t h = elements::hash(i / 10, 31);  // the same call ten times
        const uint64_t memories = elements::hash(i, 32);
        Call call;
        call.collective = static_cast<Collective>(h % kNumCollectives);
        call.type = commFloat32;
        call.count = 4096 + (h >> 8) % 12288;
        if (call.collective != Collective::kAllReduce && h >> 40 & 1)
          call.count /= static_cast<size_t>(sort.nranks);
        call.root = static_cast<int>(h >> 44) % sort.nranks;
        // All in memory that can be mapped, or each rank as it likes.
        const bool mixed = (memories & 3) == 0;
        const uint64_t mine = memories >> (8 + 4 * rank.rank);
        call.memory = mixed ? static_cast<Memory>(mine % 3) : Memory::kShared;
        call.seed = i + 1;
        perform(rank, arena, call);
      }
    });
  }
}

// Which way each of seven calls goes, by the trace of every rank.
TEST(Reach, DecidesOfTheNextCallLikeIt) {
  if (world::kThreadSanitized)
    GTEST_SKIP() << "needs processes; ThreadSanitizer does not follow a fork beside threads";
  char folder[] = "/tmp/libcomm-reach-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  World world{.nranks = 2, .kind = Kind::kProcesses};
  world.environment = {{"COMM_DEBUG", "TRACE"},
                       {"COMM_DEBUG_SUBSYS", "COLL"},
                       {"COMM_DEBUG_FILE", std::string(folder) + "/%p"}};
  constexpr size_t kCount = 16384;
  world::run(world, [](world::Rank& rank) {
    std::vector<float> plain(kCount, 1);
    void* shared = nullptr;
    COMM_OK(rank, commMemAlloc(&shared, kCount * sizeof(float)));
    auto* const mapped = static_cast<float*>(shared);
    std::fill(mapped, mapped + kCount, 1.0f);
    for (const bool all : {true, true, true, false, true, true, true}) {
      float* const data = all || rank.rank == 0 ? mapped : plain.data();
      COMM_OK(rank, commAllReduce(data, data, kCount, commFloat, commMax, rank.comm, nullptr));
      rank.require(data[kCount - 1] == 1, "not the largest");
    }
    COMM_OK(rank, commMemFree(shared));
  });
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream log(entry.path());
    std::string ways;
    for (std::string line; std::getline(log, line);) {
      if (line.find("allreduce(count 16384") == std::string::npos) continue;
      ways += line.find("(at once on the board)") != std::string::npos      ? '1'
              : line.find("(by windows on the board)") != std::string::npos ? 'w'
                                                                            : '?';
    }
    if (ways.empty()) continue;  // the test's own process
    ++files;
    EXPECT_EQ(ways, "1www1ww");
  }
  EXPECT_EQ(files, 2);
  std::filesystem::remove_all(folder);
}

// In the table where ranks find each other's segments, only four of these five have a place.
TEST(Reach, IsNotLostToTheOtherBufferOfTheSameCall) {
  constexpr size_t kSets = 32, kCount = 16384;
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](world::Rank& rank) {
    std::vector<float*> segments(4 * kSets + 1);
    for (float*& segment : segments) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, kCount * sizeof(float)));
      segment = static_cast<float*>(memory);
    }
    const auto reduce = [&](size_t from, size_t to, size_t count) {
      float* const in = segments[from * kSets];
      float* const out = segments[to * kSets];
      std::fill(in, in + count, 1.0f);
      COMM_OK(rank, commAllReduce(in, out, count, commFloat, commSum, rank.comm, nullptr));
      rank.require(out[0] == 2 && out[count - 1] == 2, "not the sum");
    };
    // Two calls tell of four segments, and no rank maps any. The third uses the first of them, and
    // the fifth, which needs a place.
    reduce(0, 1, kCount);
    reduce(2, 3, kCount - 1);
    reduce(0, 4, kCount);
    for (float* const segment : segments) COMM_OK(rank, commMemFree(segment));
  });
}

// A stream of calls to a root that comes late: who is ahead waits for several free slots, and all
// that is in them is what it sent.
TEST(Lines, AreNotOverwrittenBeforeTheRootHasReadThem) {
  for (const int nranks : {2, 4}) {
    world::run({.nranks = nranks, .kind = Kind::kProcesses}, [](world::Rank& rank) {
      const size_t n = static_cast<size_t>(rank.nranks);
      for (uint32_t i = 0; i < 2000; ++i) {
        const int root = static_cast<int>(i / 500) % rank.nranks;
        if (i % 100 == 50 && rank.rank == root) ::usleep(2000);  // not needed: makes it likelier
        const size_t count = 1 + i % 40;
        std::vector<uint32_t> mine(count), all(count * n);
        for (size_t at = 0; at < count; ++at)
          mine[at] = i * 1000 + static_cast<uint32_t>(rank.rank) * 100 + static_cast<uint32_t>(at);
        COMM_OK(rank,
                commGather(mine.data(), all.data(), count, commUint32, root, rank.comm, nullptr));
        if (rank.rank != root) continue;
        bool right = true;
        for (size_t at = 0; at < all.size(); ++at)
          right = right && all[at] == i * 1000 + static_cast<uint32_t>(at / count) * 100 +
                                          static_cast<uint32_t>(at % count);
        rank.require(right, "gather " + std::to_string(i) + " gave something else");
      }
    });
  }
}

// A sender that is many exchanges ahead: the places of the bulk are used again and again.
TEST(Bulk, IsNotOverwrittenBeforeAllHaveReadIt) {
  for (const int nranks : {2, 4}) {
    world::run({.nranks = nranks, .kind = Kind::kProcesses}, [](world::Rank& rank) {
      std::vector<uint32_t> data(16384), all;
      for (uint32_t i = 0; i < 600; ++i) {
        const size_t count = 450 + elements::hash(i, 1) % 15900;
        const int root = static_cast<int>(i / 100) % rank.nranks;
        const auto value = [&](size_t at) { return i * 65536 + static_cast<uint32_t>(at); };
        if (rank.rank == root)
          for (size_t at = 0; at < count; ++at) data[at] = value(at);
        COMM_OK(rank, commBcast(data.data(), count, commUint32, root, rank.comm, nullptr));
        bool right = true;
        for (size_t at = 0; at < count; ++at) right = right && data[at] == value(at);
        rank.require(right, "broadcast " + std::to_string(i) + " gave something else");
        if (i % 7 != 0) continue;
        const size_t block = count / static_cast<size_t>(rank.nranks);
        all.resize(block * static_cast<size_t>(rank.nranks));
        COMM_OK(rank,
                commScatter(data.data(), all.data(), block, commUint32, root, rank.comm, nullptr));
        for (size_t at = 0; at < block; ++at)
          right = right && all[at] == value(static_cast<size_t>(rank.rank) * block + at);
        rank.require(right, "scatter " + std::to_string(i) + " gave something else");
      }
    });
  }
}

}  // namespace
}  // namespace matrix
