// DeviceProgram: one rank's schedule for one operation, as the executor's kernel takes it
// (src/device/kernels/execute_arguments.h): the same steps, with bytes in the place of chunks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "src/base/status.h"
#include "src/device/kernels/execute_arguments.h"
#include "src/execute/operation.h"
#include "src/schedule/schedule.h"

namespace libcomm {

// What a schedule needs of connections and of scratch memory: the largest of all ranks' is what
// they agree on.
struct DeviceNeeds {
  size_t messages = 1;        // that one lane sends to one peer
  size_t scratch_chunks = 0;  // that all lanes touch
  size_t lanes = 1;
  size_t steps = 0;
  size_t operands = 0;

  static DeviceNeeds of(const Schedule& schedule);
  void take_larger(const DeviceNeeds& other);
};

struct DeviceProgram {
  static constexpr uint64_t kNoLimit = UINT64_MAX;

  bool by_lines = false;
  uint64_t window = 0;
  uint32_t windows = 0;
  bool announces = false;  // as cuda::ExecuteArguments', and the next
  uint64_t most_bytes = kNoLimit;
  uint32_t lanes = 1;
  std::vector<cuda::ExecuteStep> steps;
  std::vector<cuda::ExecuteOperand> operands;
  std::array<uint32_t, cuda::kMostExecuteLanes + 1> lane_begin{};

  // `needs`: of all ranks. What is chosen here (lines or not, the window) follows from arguments
  // that the ranks agree on: so in an AllToAllV, of which each rank knows its own sizes only,
  // there are never lines. Of a pre-multiplied sum, what reads Space::kIn multiplies: the kernel
  // sees to that.
  // kInternal: the schedule does not fit into areas of that shape.
  // `may_use_lines`: where they fit. Chunks of more than `most_bytes` are for others to move; the
  // number of windows may differ between ranks of which one has larger ones than the other.
  static Result<DeviceProgram> compile(const Schedule& schedule, const Operation& operation,
                                       const DeviceNeeds& needs, const cuda::AreaShape& shape,
                                       bool may_use_lines = true, uint64_t most_bytes = kNoLimit);
};

// Areas for so many ranks and lanes, of about so many bytes each.
cuda::AreaShape area_shape(int nranks, int lanes, size_t bytes);

}  // namespace libcomm
