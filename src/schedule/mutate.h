// Mutations: seeded corruptions of good schedules, to prove that the checker sees what it should.
//
// Each one is of a kind that changes the schedule's meaning for certain (a swap, for instance, only
// of steps whose order matters), so that every one must be rejected.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/schedule/schedule.h"

namespace libcomm {

enum class Mutation {
  kDrop,           // a step is missing
  kDuplicate,      // a step is done twice
  kSwap,           // two steps in the wrong order
  kWrongPeer,      // a message goes to, or is expected from, another rank
  kWrongOnward,    // a fused step passes on to another rank
  kWrongChunk,     // another chunk is read or written
  kWrongSpace,     // an addition starts from the wrong buffer
  kWrongCount,     // a run is one chunk longer or shorter
  kMissingFinal,   // an average would not be divided
  kSpareFinal,     // it would be divided too early or twice
  kWrongOperands,  // a contribution missing, twice, or in another order than elsewhere
  kWrongTimes,     // a repeat one round too long or too short
  kWrongLane,      // a step has moved to another lane
  kCount
};
const char* name_of(Mutation mutation);

// Corrupts one rank's schedule. False when the schedules hold no step for this kind of mutation;
// else `what` says what was done. Repeats are written out first, except for kWrongTimes.
bool mutate(std::vector<Schedule>* ranks, Mutation mutation, uint64_t seed, std::string* what);

}  // namespace libcomm
