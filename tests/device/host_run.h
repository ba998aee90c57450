// The schedules of all ranks, done step by step on host memory with the host's kernels: what the
// executor of GPUs must give, bit by bit.
#pragma once

#include <cstddef>
#include <vector>

#include "src/execute/operation.h"
#include "src/schedule/schedule.h"

namespace libcomm::test {

// Of one rank; `in` may be `out` plus an offset.
struct HostBuffers {
  std::byte* in = nullptr;
  std::byte* out = nullptr;
};

// The operations are those of the ranks: alike but for tables. Fails the test when the ranks wait
// for each other.
void run_on_host(const std::vector<Schedule>& ranks, const std::vector<Operation>& operations,
                 const std::vector<HostBuffers>& buffers);

}  // namespace libcomm::test
