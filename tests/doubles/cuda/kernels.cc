// The library's kernels on the double: the step code of src/device/kernels, compiled for the host
// and run for every thread of the launch. Loading the double is enough to have them.
#include <atomic>
#include <cstdint>
#include <cstring>

#include "src/device/kernels/arguments.h"
#include "src/device/kernels/copy_step.h"
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
  cuda_double_register_kernel("libcomm_late_copy", sizeof(const void*), run_late_copy);
  cuda_double_register_kernel("libcomm_copy", sizeof(CopyArguments), run_copy);
  return true;
}();

}  // namespace
}  // namespace libcomm::cuda
