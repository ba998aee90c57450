// Recursive doubling (rd): in round i a rank exchanges everything with the rank 2^i away and adds.
//
// The fewest rounds for a small all-reduce. Other rank counts fold (fold.h).
// Source: Thakur, Rabenseifner and Gropp 2005.
// Cost: log2(p) (a + n b); a fold adds 2(a + n b).
#include <array>

#include "algorithms/fold.h"
#include "src/schedule/builder.h"

namespace libcomm::rd {

namespace {

void all_reduce(Builder& b, const Fold& fold) {
  if (fold.extra) {
    b.send(fold.partner, in(0));
    b.recv(fold.partner, out(0));
    return;
  }
  // 1. Take in the extra rank's contribution.
  Ref held = in(0);
  if (fold.paired) {
    b.recv_reduce(fold.partner, in(0), out(0));
    held = out(0);
  }
  // 2. Exchange and add. The sum goes to another place than the one being sent (input and output
  // may
  //    be the same memory): two partners that each wait for their own send would wait for ever.
  if (fold.size == 2) {
    const int peer = fold.rank_of(fold.virtual_rank ^ 1);
    b.send(peer, held);
    b.recv(peer, scratch(0, 0));
    const bool lower = fold.virtual_rank == 0;
    const std::array<Ref, 2> operands = {lower ? held : scratch(0, 0),
                                         lower ? scratch(0, 0) : held};
    b.reduce(out(0), operands).final = true;
  } else {
    int bank = 0;
    for (int distance = 1; distance < fold.size; distance *= 2, bank ^= 1) {
      const int peer = fold.rank_of(fold.virtual_rank ^ distance);
      const bool last = distance * 2 == fold.size;
      const Ref sum = last ? out(0) : scratch(bank, 0);
      b.send(peer, held);
      b.recv_reduce(peer, held, sum).final = last;
      held = sum;
    }
  }
  // 3. Give the extra rank the result.
  if (fold.paired) b.send(fold.partner, out(0));
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  return request.collective == Collective::kAllReduce;
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("rd", request);
  Builder b("rd", request, rank, 1);
  all_reduce(b, Fold(request.nranks, rank));
  return b.finish();
}

}  // namespace libcomm::rd
