// Fusion: a receive followed by a send of what it produced becomes one step, so that an executor
// can reduce straight into the next rank's slot instead of writing, then reading again.
#pragma once

#include "src/schedule/schedule.h"

namespace libcomm {

// kRecvReduce + kSend of its dst -> kRecvReduceSend, kRecv + kSend of its dst -> kRecvCopySend,
// where the two are neighbours in a lane or in a repeat's body. The meaning stays: dst is still
// written.
void fuse(Schedule* schedule);

// The inverse: every fused step that has a dst becomes its two plain steps.
void unfuse(Schedule* schedule);

// Writes every repeat out. For tests and for tools that want to see each step.
void unroll(Schedule* schedule);

}  // namespace libcomm
