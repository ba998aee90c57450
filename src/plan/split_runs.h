// Runs of chunks, taken apart.
//
// A run is one message because its chunks are neighbours in memory. The blocks of an all-gather-v
// lie wherever each rank's displacements say, and the ranks need not agree about those: there every
// chunk is a message of its own, on all ranks alike.
#pragma once

#include "src/schedule/schedule.h"

namespace libcomm {

// The same schedule with every run of n chunks as n steps of one chunk, in the same order.
Schedule split_runs(const Schedule& schedule);

}  // namespace libcomm
