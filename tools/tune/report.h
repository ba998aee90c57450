// What comm-tune found: as rows of a tuning table and as text.
#pragma once

#include <string>
#include <vector>

#include "src/plan/tuning_table.h"
#include "tools/tune/measure.h"

namespace libcomm::tune {

// The fastest of one call; what the library does without a table, where nothing is faster by more
// than what measurements differ by anyway.
const Timing& best_of(const Measurement& measurement);

// A row per measured size, from the size before it (exclusively) to it; beyond the largest the same
// goes on.
TuningTable make_table(const std::vector<Measurement>& measurements, const std::string& machine);

// One line per measured size: the best way, what the model would do and how much slower that is,
// and what the model predicted.
std::string report(const std::vector<Measurement>& measurements, bool verbose);

// "Intel(R) Xeon(R) Processor, 2 cores, Linux 6.1.0".
std::string describe_machine();

}  // namespace libcomm::tune
