// The cases in which comm-check and the tests prove an algorithm: for a rank count, every
// collective it supports, with the roots, lanes, ring orders, host layouts and slices that make a
// difference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/schedule/schedule.h"

namespace libcomm {

struct ScheduleCase {
  const Algorithm* algorithm;
  ScheduleRequest request;
  int slices = 1;
  // A million steps or so: worth starting first.
  bool heavy() const { return request.nranks > 256; }
};

// All algorithms' cases, or those of the one named. Small rank counts get every variant, large ones
// the plain form.
std::vector<ScheduleCase> schedule_cases(int nranks, const std::string& algorithm = "");

// "1..64, 100, 128, 255, 256, 1000, 1024", up to `max_ranks`.
std::vector<int> schedule_rank_counts(int max_ranks);

struct MutationReport {
  int made = 0;
  std::vector<std::string> survivors;  // corruptions that the checker let pass
};
// Corrupts `count` good schedules of all algorithms (or the one named) and checks each.
MutationReport try_mutations(int count, uint64_t seed, const std::string& algorithm = "");

// "allreduce by ring, 5 ranks, 2 lanes, ..." for messages.
std::string to_string(const ScheduleCase& schedule_case);

}  // namespace libcomm
