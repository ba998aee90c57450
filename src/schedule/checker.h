// Checker: proves that the schedules of all ranks together do what their collective means, before a
// byte moves. It runs every rank symbolically (src/schedule/symbolic/) and proves
//   result       every output chunk holds exactly the contributions that it should, each once; for
//                reducing collectives `final` was applied exactly once, to the complete value
//   matching     every receive meets a send of the same chunks' sizes, in order; nothing is left
//   over progress     no deadlock although a message stays in its sender's memory until it is
//   taken, and one
//                message per channel is under way
//   order        no step reads a chunk that has no value, writes an input, or touches what another
//   lane
//                writes; reuse of memory that is still being sent waits, and that wait ends
//   same bits    an all-reduce combines a chunk by the same expression on every rank; the fused
//                exchanges in rank order, as their hand-written kernels do
// Receives name their peer and channels keep order, so that one execution stands for all of them.
#pragma once

#include <span>

#include "src/base/status.h"
#include "src/schedule/schedule.h"

namespace libcomm {

struct CheckOptions {
  bool in_place = false;
  // Runs the schedule this often, one after the other per lane, on different parts of every chunk.
  int slices = 1;
};

// `ranks` are the schedules of rank 0, 1, ... kInternal with a counter-example that names rank,
// lane, step and chunk.
Status check(std::span<const Schedule> ranks, const CheckOptions& options = {});

// Builds all ranks' schedules; `supports` must hold.
std::vector<Schedule> build_all(const Algorithm& algorithm, const ScheduleRequest& request);

// Checks out of place, and in place where the collective has that form.
Status check_both(std::span<const Schedule> ranks, int slices = 1);

}  // namespace libcomm
