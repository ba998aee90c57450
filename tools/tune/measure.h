// Measuring: every way of doing a collective, interleaved, on the ranks of one communicator.
//
// A way is forced by a communicator of its own, split off with a COMM_TUNER_FILE of one row.
#pragma once

#include <comm.h>

#include <string>
#include <vector>

#include "src/base/status.h"
#include "src/plan/tuning_table.h"
#include "tools/tune/options.h"

namespace libcomm::tune {

// One way with its settings.
struct Variant {
  Way way = Way::kRing;
  int lanes = 0;
  size_t window = 0;
  bool operator==(const Variant&) const = default;
  std::string to_string() const;  // "ring", "ring, 2 lanes"
};

struct Timing {
  Variant variant;
  double microseconds = 0;  // median over rounds of the slowest rank
  double model_us = 0;      // what the cost model says
};

// All ways of one call, in the order in which they were measured.
struct Measurement {
  TuningKey key;
  Variant by_model;  // what the library does without a table
  std::vector<Timing> timings;
};

// On every rank of the communicator alike; `shared_memory`: not forbidden. Measurements come back
// on rank 0. Knobs that decide algorithms must not be set.
Result<std::vector<Measurement>> measure(comm_t comm, const Options& options, bool shared_memory);

// How measurements travel from rank 0 to the parent, line by line.
std::string write_measurements(const std::vector<Measurement>& measurements);
Result<std::vector<Measurement>> read_measurements(std::string_view text);

}  // namespace libcomm::tune
