#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/device/kernels/copy_step.h"
#include "src/device/kernels/reduce_step.h"
#include "src/device/kernels/table.h"
#include "tests/device/machine.h"
#include "tests/doubles/cuda/all_threads.h"

namespace libcomm::cuda::test {
namespace {

class HostMachine : public Machine {
 public:
  HostMachine(unsigned grid, unsigned block) : grid_(grid), block_(block) {}

  std::byte* alloc(size_t bytes) override {
    auto* memory = static_cast<std::byte*>(
        std::aligned_alloc(kAlignment, bytes + kAlignment - bytes % kAlignment));
    memory_.emplace_back(memory, &std::free);
    return memory;
  }
  void write(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void read(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

  Status reduce(const ReduceArguments& arguments) override {
    using Run = void (HostMachine::*)(const ReduceArguments&) const;
    static constexpr Run kRuns[kNumDataTypes] = {
#define COMM_RUN(type, format) &HostMachine::reduce_as<format>,
        COMM_REDUCE_KERNELS(COMM_RUN)
#undef COMM_RUN
    };
    (this->*kRuns[static_cast<size_t>(arguments.type)])(arguments);
    return Status::ok();
  }
  Status copy(const CopyArguments& arguments) override {
    for_all_threads(grid_, block_, [&](const Place& place) { copy_step(arguments, place); });
    return Status::ok();
  }

 private:
  static constexpr size_t kAlignment = 256;

  template <class F>
  void reduce_as(const ReduceArguments& arguments) const {
    const Reduction<F> reduction(arguments);
    for_all_threads(grid_, block_, [&](const Place& place) { reduction.run(place); });
  }

  unsigned grid_;
  unsigned block_;
  std::vector<std::unique_ptr<std::byte, decltype(&std::free)>> memory_;
};

}  // namespace

std::unique_ptr<Machine> host_machine(unsigned grid, unsigned block) {
  return std::make_unique<HostMachine>(grid, block);
}

}  // namespace libcomm::cuda::test
