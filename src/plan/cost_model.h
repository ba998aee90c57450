// CostModel: what a way of doing a collective takes, in microseconds.
//
// The model is the usual one (alpha, beta, gamma: Thakur et al. 2005; Chan et al. 2007): a price
// per message, per byte moved and per byte combined, times how often the busiest rank does each.
// The prices are measured per machine class: what carries the bytes, and whether ranks have cores
// of their own or take turns. docs/tuning.md tells how.
//
// All ranks must come to the same bits, so only additions, multiplications, divisions and
// comparisons of doubles are used, which IEEE 754 defines exactly.
#pragma once

#include <cstddef>

#include "src/plan/plan.h"
#include "src/plan/way.h"
#include "src/schedule/schedule.h"

namespace libcomm {

// What prices depend on; agreed between all ranks.
struct PricedGroup {
  int nranks = 2;
  int hosts = 1;
  int most_per_host = 2;
  Medium medium = Medium::kMemory;
  double ranks_per_core = 1;
  size_t segment_bytes = size_t{64} << 10;
};

// Microseconds of one collective whose largest block has `bytes` bytes, by `way` on `route`. More
// bytes never cost less.
double price_us(const PricedGroup& group, Collective collective, size_t bytes, Route route,
                Way way);
// Of one message between two ranks.
double message_us(const PricedGroup& group, size_t bytes);

}  // namespace libcomm
