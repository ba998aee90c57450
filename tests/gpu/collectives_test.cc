// The matrix of collectives on GPU memory: every collective, type and operator, on streams, ranks
// as threads and as processes, over shared memory and over sockets, whole and in windows.
#include <gtest/gtest.h>

#include "tests/collectives/sweep.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace matrix {
namespace {

using world::Kind;
using world::kSanitized;
using world::Rank;
using world::World;

void perform_on_gpus(const World& world, std::vector<Call> calls) {
  world::run(world, [&](Rank& rank) {
    gpu::use(rank.rank % gpu::count());
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
