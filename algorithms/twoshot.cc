// Two-shot: everyone sends share r to rank r, which combines all contributions in one step in rank
// order; then everyone gets every share from its owner.
//
// Two rounds, and no more bytes than a ring; what ranks with a shared mapping do fastest when the
// message is large (Fused::kTwoshotAllReduce). Share r of the buffer belongs to rank r.
// Cost: 2a + 2(p-1)/p n b.
#include "algorithms/direct.h"

namespace libcomm::twoshot {

bool supports(const ScheduleRequest& request) {
  return request.collective == Collective::kAllReduce && request.nranks <= direct::kMaxRanks;
}

Schedule build(const ScheduleRequest& request, int rank) {
  const int nranks = request.nranks;
  if (nranks == 1) return single_rank("twoshot", request);
  Builder b("twoshot", request, rank, nranks);
  b.mark_fused(Fused::kTwoshotAllReduce);
  // 1. Every share to its owner; combine the own one.
  direct::send_to_all(b, nranks, rank, in);
  direct::reduce_from_all(b, nranks, rank, rank, out(rank));
  // 2. The result to everyone, the others' results from their owners.
  direct::send_to_all(b, nranks, rank, [&](int, int) { return out(rank); });
  direct::recv_from_all(b, nranks, rank, out);
  return b.finish();
}

}  // namespace libcomm::twoshot
