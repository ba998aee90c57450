// Groups of small collectives, which the library carries out together: each gets its own result,
// whatever stands between them, and ranks whose groups differ are told so.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/collectives/world.h"

namespace {

using world::Kind;
using world::Rank;
using world::World;

constexpr size_t kCounts[] = {1, 7, 64, 3, 250, 1, 0, 13, 2000, 5};

// Element i of what `rank` gives to call k.
float value(int rank, size_t k, size_t i) {
  return static_cast<float>(rank + 1) * static_cast<float>(k + 3) + static_cast<float>(i % 50);
}

struct Buffers {
  std::vector<float> in, out;
};

std::vector<Buffers> make_buffers(const Rank& rank, size_t in_blocks, size_t out_blocks) {
  std::vector<Buffers> all;
  for (size_t k = 0; k < std::size(kCounts); ++k) {
    Buffers buffers;
    for (size_t i = 0; i < kCounts[k] * in_blocks; ++i)
      buffers.in.push_back(value(rank.rank, k, i));
    buffers.out.assign(kCounts[k] * out_blocks, -1);
    all.push_back(std::move(buffers));
  }
  return all;
}

template <typename Call>
void in_a_group(Rank& rank, Call&& call) {
  COMM_OK(rank, commGroupStart());
  for (size_t k = 0; k < std::size(kCounts); ++k) COMM_OK(rank, call(k));
  COMM_OK(rank, commGroupEnd());
}

template <typename Expected>
void check(Rank& rank, const std::vector<Buffers>& all, const char* what, Expected&& expected) {
  for (size_t k = 0; k < all.size(); ++k)
    for (size_t i = 0; i < all[k].out.size(); ++i) {
      if (all[k].out[i] == expected(k, i)) continue;
      rank.expect(false, std::string(what) + ", call " + std::to_string(k) + ", element " +
                             std::to_string(i) + ": " + std::to_string(all[k].out[i]) +
                             " instead of " + std::to_string(expected(k, i)));
      return;
    }
}

float sum(int nranks, size_t k, size_t i) {
  float total = 0;
  for (int r = 0; r < nranks; ++r) total += value(r, k, i);
  return total;
}

void all_collectives(Rank& rank) {
  const auto n = static_cast<size_t>(rank.nranks);
  const int root = rank.nranks - 1;
  const bool is_root = rank.rank == root;
  {
    auto all = make_buffers(rank, 1, 1);
    in_a_group(rank, [&](size_t k) {
      return commAllReduce(all[k].in.data(), all[k].out.data(), kCounts[k], commFloat, commSum,
                           rank.comm, nullptr);
    });
    check(rank, all, "allreduce", [&](size_t k, size_t i) { return sum(rank.nranks, k, i); });
  }
  {
    auto all = make_buffers(rank, 1, 1);
    in_a_group(rank, [&](size_t k) {  // in place
      all[k].out = all[k].in;
      return commAllReduce(all[k].out.data(), all[k].out.data(), kCounts[k], commFloat, commMax,
                           rank.comm, nullptr);
    });
    check(rank, all, "max", [&](size_t k, size_t i) { return value(root, k, i); });
  }
  {
    auto all = make_buffers(rank, 1, n);
    in_a_group(rank, [&](size_t k) {
      return commAllGather(all[k].in.data(), all[k].out.data(), kCounts[k], commFloat, rank.comm,
                           nullptr);
    });
    check(rank, all, "allgather", [&](size_t k, size_t i) {
      return value(static_cast<int>(i / kCounts[k]), k, i % kCounts[k]);
    });
  }
  {
    auto all = make_buffers(rank, n, 1);
    in_a_group(rank, [&](size_t k) {
      return commReduceScatter(all[k].in.data(), all[k].out.data(), kCounts[k], commFloat, commSum,
                               rank.comm, nullptr);
    });
    check(rank, all, "reducescatter", [&](size_t k, size_t i) {
      return sum(rank.nranks, k, static_cast<size_t>(rank.rank) * kCounts[k] + i);
    });
  }
  {
    auto all = make_buffers(rank, 1, 1);
    in_a_group(rank, [&](size_t k) {
      return commReduce(all[k].in.data(), all[k].out.data(), kCounts[k], commFloat, commSum, root,
                        rank.comm, nullptr);
    });
    check(rank, all, "reduce",
          [&](size_t k, size_t i) { return is_root ? sum(rank.nranks, k, i) : -1; });
  }
  {
    auto all = make_buffers(rank, 1, 1);
    in_a_group(rank, [&](size_t k) {
      return commBroadcast(is_root ? all[k].in.data() : nullptr, all[k].out.data(), kCounts[k],
                           commFloat, root, rank.comm, nullptr);
    });
    check(rank, all, "broadcast", [&](size_t k, size_t i) { return value(root, k, i); });
  }
}

class Merged : public testing::TestWithParam<World> {};
INSTANTIATE_TEST_SUITE_P(
    In, Merged,
    testing::Values(
        World{.nranks = 2}, World{.nranks = 5, .kind = Kind::kProcesses},
        World{.nranks = 3, .kind = Kind::kProcesses, .environment = {{"COMM_SHM_DISABLE", "1"}}},
        World{.nranks = 3, .environment = {{"COMM_ALGO", "ring"}}}));

TEST_P(Merged, CallsGetTheirOwnResults) { world::run(GetParam(), all_collectives); }

TEST_P(Merged, CallsOfOtherKindsAndMessagesMayStandBetween) {
  world::run(GetParam(), [](Rank& rank) {
    const int next = (rank.rank + 1) % rank.nranks;
    const int previous = (rank.rank + rank.nranks - 1) % rank.nranks;
    const float mine = static_cast<float>(rank.rank);
    std::vector<float> sums(6, mine), whole(static_cast<size_t>(rank.nranks), -1);
    std::vector<double> doubles(2, mine);
    float from = -1;
    COMM_OK(rank, commGroupStart());
    for (int i = 0; i < 3; ++i)
      COMM_OK(rank, commAllReduce(&sums[static_cast<size_t>(i)], &sums[static_cast<size_t>(i)], 1,
                                  commFloat, commSum, rank.comm, nullptr));
    COMM_OK(rank, commSend(&mine, 1, commFloat, next, rank.comm, nullptr));
    COMM_OK(rank, commAllReduce(&sums[3], &sums[3], 1, commFloat, commSum, rank.comm, nullptr));
    for (double& one : doubles)
      COMM_OK(rank, commAllReduce(&one, &one, 1, commDouble, commSum, rank.comm, nullptr));
    COMM_OK(rank, commAllGather(&mine, whole.data(), 1, commFloat, rank.comm, nullptr));
    COMM_OK(rank, commRecv(&from, 1, commFloat, previous, rank.comm, nullptr));
    for (int i = 4; i < 6; ++i)
      COMM_OK(rank, commAllReduce(&sums[static_cast<size_t>(i)], &sums[static_cast<size_t>(i)], 1,
                                  commFloat, commAvg, rank.comm, nullptr));
    COMM_OK(rank, commGroupEnd());
    const float total = static_cast<float>(rank.nranks * (rank.nranks - 1) / 2);
    for (size_t i = 0; i < 4; ++i) rank.expect(sums[i] == total, "sum " + std::to_string(i));
    for (size_t i = 4; i < 6; ++i)
      rank.expect(sums[i] == total / static_cast<float>(rank.nranks),
                  "average " + std::to_string(i));
    for (const double one : doubles) rank.expect(one == static_cast<double>(total), "double");
    for (size_t i = 0; i < whole.size(); ++i)
      rank.expect(whole[i] == static_cast<float>(i), "gathered " + std::to_string(i));
    rank.expect(from == static_cast<float>(previous), "message");
  });
}

TEST(Merging, ShowsInTheTrace) {
  char folder[] = "/tmp/libcomm-merged-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  World world{.nranks = 2, .kind = Kind::kProcesses};
  world.environment = {{"COMM_DEBUG", "TRACE"},
                       {"COMM_DEBUG_SUBSYS", "COLL"},
                       {"COMM_DEBUG_FILE", std::string(folder) + "/%p"}};
  world::run(world, [](Rank& rank) {
    std::vector<float> data(100, 1);
    COMM_OK(rank, commGroupStart());
    for (float& one : data)
      COMM_OK(rank, commAllReduce(&one, &one, 1, commFloat, commSum, rank.comm, nullptr));
    COMM_OK(rank, commGroupEnd());
  });
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    if (text.str().find("operation") == std::string::npos) continue;  // the test's own process
    ++files;
    EXPECT_NE(text.str().find("100 calls of a group, allreduce(count 100, "), std::string::npos)
        << text.str();
  }
  EXPECT_EQ(files, 2);
  std::filesystem::remove_all(folder);
}

TEST(Merging, NamesARankWhoseGroupDiffers) {
  world::run({.nranks = 2, .kind = Kind::kProcesses}, [](Rank& rank) {
    std::vector<float> data(4, 1);
    const size_t calls = rank.rank == 0 ? 4 : 2;
    COMM_OK(rank, commGroupStart());
    for (size_t i = 0; i < calls; ++i)
      COMM_OK(rank,
              commAllReduce(&data[i], &data[i], 4 / calls, commFloat, commSum, rank.comm, nullptr));
    COMM_FAILS(rank, commGroupEnd(), commInvalidUsage, "4 calls of a group", "2 calls of a group");
    COMM_OK(rank, commAbort(rank.comm));
    rank.comm = nullptr;
  });
}

}  // namespace
