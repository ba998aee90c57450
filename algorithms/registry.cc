#include "algorithms/registry.h"

#include <array>

namespace libcomm {

// One pair of functions per algorithm file.
#define ALGORITHM(space)                                    \
  namespace space {                                         \
  bool supports(const ScheduleRequest& request);            \
  Schedule build(const ScheduleRequest& request, int rank); \
  }
ALGORITHM(ring)
ALGORITHM(hd)
ALGORITHM(rd)
ALGORITHM(tree)
ALGORITHM(oneshot)
ALGORITHM(twoshot)
ALGORITHM(star)
ALGORITHM(pairwise)
ALGORITHM(bruck)
ALGORITHM(binomial)
ALGORITHM(hierarchical)
#undef ALGORITHM

std::span<const Algorithm> algorithms() {
  static constexpr std::array<Algorithm, 11> kAlgorithms = {{
      {"ring", "neighbours only, least bytes (Patarasuk and Yuan 2009)", ring::supports,
       ring::build},
      {"hd", "recursive halving and doubling, least bytes in log p rounds (Rabenseifner 2004)",
       hd::supports, hd::build},
      {"rd", "recursive doubling, whole vectors in log p rounds (Thakur et al. 2005)", rd::supports,
       rd::build},
      {"tree", "two binary trees, half of the data each (Sanders et al. 2009)", tree::supports,
       tree::build},
      {"oneshot", "everyone to everyone in one round, one rounding", oneshot::supports,
       oneshot::build},
      {"twoshot", "a share per rank, reduced by its owner in one step, then gathered",
       twoshot::supports, twoshot::build},
      {"star", "the parameter server: the root talks to everyone", star::supports, star::build},
      {"pairwise", "all-to-all as p-1 permutations (Thakur et al. 2005)", pairwise::supports,
       pairwise::build},
      {"bruck", "log p rounds for any rank count (Bruck et al. 1997)", bruck::supports,
       bruck::build},
      {"binomial", "binomial tree for rooted collectives", binomial::supports, binomial::build},
      {"hierarchical", "inside a host, then between hosts, every local rank with its share",
       hierarchical::supports, hierarchical::build},
  }};
  return kAlgorithms;
}

const Algorithm* find_algorithm(std::string_view name) {
  for (const Algorithm& algorithm : algorithms())
    if (name == algorithm.name) return &algorithm;
  return nullptr;
}

}  // namespace libcomm
