// Which algorithm a collective takes on the executor of GPUs, whose steps are kernels' and whose
// connections are GPU memory.
#pragma once

#include <cstddef>
#include <string>

#include "src/schedule/schedule.h"

namespace libcomm {

// What COMM_ALGO asks for (`forced`, or ""), if it can do that; else the one with fewest rounds
// for blocks of few bytes, and the one that moves fewest bytes for others. Null: there is none. A
// pure function of what all ranks know.
const Algorithm* choose_for_gpus(const ScheduleRequest& request, size_t block_bytes,
                                 const std::string& forced);

}  // namespace libcomm
