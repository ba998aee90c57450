// GroupShape: a group as all ranks know it, which is all that decisions may depend on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "src/plan/way.h"

namespace libcomm {

struct GroupShape {
  int rank = 0;
  int nranks = 1;
  std::vector<int> host_of;  // dense from 0
  int hosts = 1;
  bool one_board = false;       // all ranks share a board
  std::vector<int> ring_order;  // empty: by rank
  size_t segment_bytes = 0;     // least over the transports in use
  int min_lanes = 1, max_lanes = 16;
  // Ranks per core where they are most crowded; 1 where every rank has a core of its own.
  double ranks_per_core = 1;

  Medium medium() const {
    return one_board ? Medium::kMemory : hosts == 1 ? Medium::kSockets : Medium::kNetwork;
  }
  // Of the host that has most.
  int most_per_host() const {
    std::vector<int> ranks(static_cast<size_t>(std::max(hosts, 1)), 0);
    for (const int host : host_of) ++ranks[static_cast<size_t>(host)];
    return std::max(1, *std::max_element(ranks.begin(), ranks.end()));
  }
};

}  // namespace libcomm
