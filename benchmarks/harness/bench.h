// The measuring loop of the *_perf programs: for every type, operator, root and size it times the
// collective out of place and in place, then checks every element of a fresh result.
#pragma once

#include <cstdint>

#include "benchmarks/harness/collective.h"
#include "benchmarks/harness/options.h"
#include "benchmarks/harness/report.h"
#include "benchmarks/harness/team.h"

namespace bench {

class Watchdog;

// Runs the whole plan in lockstep with the run's other threads. `report` is null but for rank 0;
// `watchdog` may be null. Returns how many wrong values and damaged guard bytes this thread's own
// ranks saw.
int64_t run_bench(const Collective& collective, const Options& options, Team& team, Report* report,
                  Watchdog* watchdog);

}  // namespace bench
