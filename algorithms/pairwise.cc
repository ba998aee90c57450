// Pairwise: in round i everyone sends to the rank i after it and receives from the rank i before
// it.
//
// The all-to-all for large blocks: each round is a permutation, so that no link is shared, and only
// one message per rank is under way. Source: Thakur, Rabenseifner and Gropp 2005. Cost: (p-1)(a + n
// b), n the block.
#include "src/schedule/builder.h"

namespace libcomm::pairwise {

bool supports(const ScheduleRequest& request) {
  return request.collective == Collective::kAllToAll ||
         request.collective == Collective::kAllToAllV;
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("pairwise", request);
  Builder b("pairwise", request, rank, 1);
  b.copy(in(rank), out(rank));
  b.repeat(request.nranks - 1, [&] {
    b.send({rank + 1, 1}, in(rank + 1, 1));
    b.recv({rank - 1, -1}, out(rank - 1, -1));
  });
  return b.finish();
}

}  // namespace libcomm::pairwise
