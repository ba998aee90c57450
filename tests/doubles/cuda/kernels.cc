// The library's kernels on the double: the step code of src/device/kernels, compiled for the host
// and run for every thread of the launch. Loading the double is enough to have them.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "src/device/kernels/arguments.h"
#include "src/device/kernels/copy_step.h"
#include "src/device/kernels/execute_step.h"
#include "src/device/kernels/reduce_step.h"
#include "src/device/kernels/table.h"
#include "tests/doubles/cuda/all_threads.h"
#include "tests/doubles/cuda/control.h"

namespace libcomm::cuda {
namespace {

void* resolve(const void* pointer, size_t bytes) {
  return cuda_double_resolve(const_cast<void*>(pointer), bytes);
}

template <class F>
void run_reduce(const void* given, unsigned grid, unsigned block) {
  ReduceArguments arguments = *static_cast<const ReduceArguments*>(given);
  const size_t bytes = arguments.count * sizeof(typename F::Bits);
  for (int s = 0; s < arguments.source_count; ++s)
    arguments.sources[s] = resolve(arguments.sources[s], bytes);
  for (int d = 0; d < arguments.destination_count; ++d)
    arguments.destinations[d] = resolve(arguments.destinations[d], bytes);
  const Reduction<F> reduction(arguments);
  for_all_threads(grid, block, [&](const Place& place) { reduction.run(place); });
}

void run_copy(const void* given, unsigned grid, unsigned block) {
  CopyArguments arguments = *static_cast<const CopyArguments*>(given);
  for (int s = 0; s < arguments.segment_count; ++s) {
    CopySegment& segment = arguments.segments[s];
    if (segment.bytes == 0) continue;
    segment.from = resolve(segment.from, segment.bytes);
    segment.to = resolve(segment.to, segment.bytes);
  }
  for_all_threads(grid, block, [&](const Place& place) { copy_step(arguments, place); });
}

// The arguments are read when the kernel runs, from pinned memory, word by word: the host may set
// the count to zero meanwhile.
template <class Arguments>
Arguments fetch(const void* given) {
  const auto* where = *static_cast<const Arguments* const*>(given);
  auto* words = static_cast<uint64_t*>(resolve(where, sizeof *where));
  uint64_t fetched[sizeof(Arguments) / sizeof(uint64_t)];
  for (uint64_t& word : fetched) word = std::atomic_ref(*words++).load(std::memory_order_acquire);
  Arguments arguments;
  std::memcpy(static_cast<void*>(&arguments), fetched, sizeof arguments);
  return arguments;
}

template <class F>
void run_late_reduce(const void* given, unsigned grid, unsigned block) {
  const auto arguments = fetch<ReduceArguments>(given);
  if (arguments.count > 0) run_reduce<F>(&arguments, grid, block);
}

void run_late_copy(const void* given, unsigned grid, unsigned block) {
  const auto arguments = fetch<CopyArguments>(given);
  run_copy(&arguments, grid, block);
}

// Where memory is used from its beginning: up to what some step touches.
struct Extents {
  size_t in = 0, out = 0;
};
Extents extents_of(const ExecuteArguments& arguments) {
  Extents extents;
  const auto touch = [&](ExecuteSpace space, uint64_t offset, uint64_t bytes) {
    if (bytes == 0 || bytes > arguments.most_bytes) return;
    if (space == ExecuteSpace::kIn) extents.in = std::max(extents.in, offset + bytes);
    if (space == ExecuteSpace::kOut) extents.out = std::max(extents.out, offset + bytes);
  };
  for (uint32_t i = 0; i < arguments.lane_begin[arguments.lanes]; ++i) {
    const ExecuteStep& step = arguments.steps[i];
    touch(step.src_space, step.src, step.bytes);
    touch(step.dst_space, step.dst, step.bytes);
    for (uint32_t o = 0; o < step.operands; ++o) {
      const ExecuteOperand& operand = arguments.operands[step.operand + o];
      touch(operand.space, operand.offset, step.bytes);
    }
  }
  return extents;
}

// Blocks wait for other ranks' blocks, and the threads of a block for each other: all of them are
// threads here. How many a block has makes no difference to what they do, so that few are enough.
template <class F>
void run_execute(const void* given, unsigned grid, unsigned) {
  constexpr unsigned kThreads = 2;
  ExecuteArguments arguments = *static_cast<const ExecuteArguments*>(given);
  const auto abort = static_cast<uint32_t*>(resolve(arguments.abort, sizeof(uint32_t)));
  arguments.abort = abort;
  arguments.begun = static_cast<uint32_t*>(resolve(arguments.begun, sizeof(uint32_t)));
  arguments.ended = static_cast<uint32_t*>(resolve(arguments.ended, sizeof(uint32_t)));
  // What it must not touch may be gone.
  if (arguments.asks_first && load_word(number(abort)) != 0) {
    store_word(number(arguments.ended), arguments.number);
    return;
  }
  const uint32_t steps = arguments.lane_begin[arguments.lanes];
  if (steps > 0)
    arguments.steps =
        static_cast<const ExecuteStep*>(resolve(arguments.steps, steps * sizeof(ExecuteStep)));
  if (arguments.operand_count > 0)
    arguments.operands = static_cast<const ExecuteOperand*>(
        resolve(arguments.operands, arguments.operand_count * sizeof(ExecuteOperand)));
  arguments.mismatch =
      static_cast<ExecuteMismatch*>(resolve(arguments.mismatch, sizeof(ExecuteMismatch)));
  if (arguments.scalar_at != nullptr)
    arguments.scalar_at = resolve(arguments.scalar_at, size_of(arguments.type));
  const Extents extents = extents_of(arguments);
  if (extents.in > 0) arguments.in = resolve(arguments.in, extents.in);
  if (extents.out > 0) arguments.out = resolve(arguments.out, extents.out);
  for (int rank = 0; rank < arguments.shape.nranks; ++rank)
    arguments.areas[rank] =
        static_cast<std::byte*>(resolve(arguments.areas[rank], area_bytes(arguments.shape)));
  std::vector<LaneMemory> memories(grid);
  std::deque<Team> teams;
  std::vector<std::thread> threads;
  for (unsigned block = 0; block < grid; ++block) {
    Team& team = teams.emplace_back(kThreads);
    for (unsigned thread = 0; thread < kThreads; ++thread)
      threads.emplace_back([&arguments, &team, memory = &memories[block],
                            place = Place{block, grid, thread, kThreads}] {
        LaneRun<F>(arguments, memory, &team, place).run();
      });
  }
  for (std::thread& thread : threads) thread.join();
}

[[maybe_unused]] const bool g_registered = [] {
#define COMM_REGISTER(type, format) \
  cuda_double_register_kernel("libcomm_reduce_" #type, sizeof(ReduceArguments), run_reduce<format>);
  COMM_REDUCE_KERNELS(COMM_REGISTER)
#undef COMM_REGISTER
#define COMM_REGISTER(type, format)                                              \
  cuda_double_register_kernel("libcomm_late_reduce_" #type, sizeof(const void*), \
                              run_late_reduce<format>);
  COMM_REDUCE_KERNELS(COMM_REGISTER)
#undef COMM_REGISTER
#define COMM_REGISTER(type, format)                                               \
  cuda_double_register_kernel("libcomm_execute_" #type, sizeof(ExecuteArguments), \
                              run_execute<format>);
  COMM_REDUCE_KERNELS(COMM_REGISTER)
#undef COMM_REGISTER
  cuda_double_register_kernel("libcomm_late_copy", sizeof(const void*), run_late_copy);
  cuda_double_register_kernel("libcomm_copy", sizeof(CopyArguments), run_copy);
  return true;
}();

}  // namespace
}  // namespace libcomm::cuda
