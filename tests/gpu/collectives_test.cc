// The matrix of collectives on GPU memory: every collective, type and operator, on streams, ranks
// as threads and as processes, over shared memory and over sockets, whole and in windows.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/collectives/sweep.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace matrix {
namespace {

using world::Kind;
using world::kSanitized;
using world::Rank;
using world::World;

// The ranks use each other's GPU memory in place when they have their GPUs before they meet.
void perform_on_gpus(World world, std::vector<Call> calls) {
  const auto use = [](int rank) { gpu::use(rank % gpu::count()); };
  if (std::getenv("GPU_TEST_PEERS") != nullptr && !world.begin) world.begin = use;
  world::run(world, [&](Rank& rank) {
    if (world.begin)
      world.begin(rank.rank);
    else
      use(rank.rank);
    const gpu::Stream stream = gpu::create_stream();
    {
      Arena arena;
      arena.gpu = gpu::make_memory();
      for (size_t i = 0; i < calls.size(); ++i) {
        Call call = calls[i];
        call.memory = Memory::kGpu;
        // The default stream has a turn too.
        call.stream = static_cast<cudaStream_t>(i % 5 == 4 ? gpu::kPerThreadStream : stream);
        perform(rank, arena, call);
      }
    }
    gpu::destroy(stream);
  });
}

class Ranks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(From1To5, Ranks, testing::Range(1, 6));

TEST_P(Ranks, AsThreadsGetExactResults) {
  NEED_GPU();
  const int nranks = GetParam();
  perform_on_gpus(
      {.nranks = nranks},
      thinned(sweep(nranks, 51 * static_cast<uint64_t>(nranks), true), kSanitized ? 12 : 3));
}

TEST(Windows, OfSmallStagingMemoryGiveExactResults) {
  NEED_GPU();
  for (const int nranks : {2, 3})
    perform_on_gpus({.nranks = nranks, .environment = {{"COMM_GPU_STAGING", "128K"}}},
                    thinned(sweep(nranks, 57, true), kSanitized ? 12 : 3));
}

TEST(OneGpu, GivesExactResultsToItsRanks) {
  NEED_GPU();
  for (const Kind kind : {Kind::kThreads, Kind::kProcesses}) {
    if (kind == Kind::kProcesses && !gpu::is_double()) continue;  // its driver survives no fork
    perform_on_gpus({.nranks = 4, .kind = kind, .begin = [](int) { gpu::use(0); }},
                    thinned(sweep(4, 71, true), kSanitized ? 24 : 6));
  }
}

TEST(Processes, GetExactResults) {
  if (!gpu::is_double()) GTEST_SKIP() << "forks, which a GPU's driver does not survive";
  perform_on_gpus({.nranks = 3, .kind = Kind::kProcesses}, thinned(sweep(3, 61, true), 6));
}

TEST(Processes, OverSocketsGetExactResults) {
  if (!gpu::is_double()) GTEST_SKIP() << "forks, which a GPU's driver does not survive";
  perform_on_gpus({.nranks = 3,
                   .kind = Kind::kProcesses,
                   .environment = {{"COMM_SHM_DISABLE", "1"}, {"COMM_GPU_STAGING", "128K"}}},
                  thinned(sweep(3, 67, true), 8));
}

}  // namespace
}  // namespace matrix
