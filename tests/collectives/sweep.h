// Sweep: the calls of one world of the matrix.
//
// Not the full product: a sweep meets every pair (collective, type), (collective, operator) and
// (collective, count), and rotates everything else.
#pragma once

#include <vector>

#include "tests/collectives/call.h"

namespace matrix {

// Every rank makes the same list. `salt` varies what is rotated; `large` adds a count of 100003.
std::vector<Call> sweep(int nranks, uint64_t salt, bool large);
// One call in `keep_one_in`, spread over the list.
std::vector<Call> thinned(std::vector<Call> calls, size_t keep_one_in);
// Makes all calls, in order, on all ranks of the world.
void perform_all(const world::World& world, const std::vector<Call>& calls);

}  // namespace matrix
