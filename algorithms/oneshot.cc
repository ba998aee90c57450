// One-shot: everyone sends its part to everyone, in one round.
//
// All-reduce, reduce (at its root) and reduce-scatter then combine all parts in one step, in rank
// order: one rounding, the same bits everywhere. The least latency there is, at p times the bytes;
// what small messages want, and what a shared mapping does without any message
// (Fused::kOneshotAllReduce). Cost: a + (p-1) n b for all-reduce; a + (p-1)/p n b for the others, n
// the whole vector.
#include "algorithms/direct.h"

namespace libcomm::oneshot {

namespace {

void all_reduce(Builder& b, int nranks, int rank) {
  b.mark_fused(Fused::kOneshotAllReduce);
  direct::send_to_all(b, nranks, rank, [](int, int) { return in(0); });
  direct::reduce_from_all(b, nranks, rank, 0, out(0));
}

void reduce(Builder& b, int nranks, int rank, int root) {
  if (rank == root)
    direct::reduce_from_all(b, nranks, rank, 0, out(0));
  else
    b.send(root, in(0));
}

void reduce_scatter(Builder& b, int nranks, int rank, bool sizes_differ) {
  direct::send_to_all(b, nranks, rank, in);
  if (sizes_differ) {
    direct::reduce_from_all(b, nranks, rank, rank, out(0));
    return;
  }
  // Blocks of one size: a contribution waits in the place of its sender's block.
  direct::recv_from_all(b, nranks, rank,
                        [](int peer, int stride) { return scratch(0, peer, stride); });
  std::vector<Ref> operands;
  for (int peer = 0; peer < nranks; ++peer)
    operands.push_back(peer == rank ? in(rank) : scratch(0, peer));
  b.reduce(out(0), operands).final = true;
}

void all_gather(Builder& b, int nranks, int rank) {
  direct::send_to_all(b, nranks, rank, [](int, int) { return in(0); });
  b.copy(in(0), out(rank));
  direct::recv_from_all(b, nranks, rank, out);
}

void all_to_all(Builder& b, int nranks, int rank) {
  direct::send_to_all(b, nranks, rank, in);
  b.copy(in(rank), out(rank));
  direct::recv_from_all(b, nranks, rank, out);
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  switch (request.collective) {
    case Collective::kAllReduce:
    case Collective::kReduce:
    case Collective::kReduceScatterV:
      return request.nranks <= direct::kMaxRanks;
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kAllGatherV:
    case Collective::kAllToAll:
    case Collective::kAllToAllV:
      return true;
    default:
      return false;
  }
}

Schedule build(const ScheduleRequest& request, int rank) {
  const int nranks = request.nranks;
  if (nranks == 1) return single_rank("oneshot", request);
  Builder b("oneshot", request, rank, 1);
  switch (request.collective) {
    case Collective::kAllReduce:
      all_reduce(b, nranks, rank);
      break;
    case Collective::kReduce:
      reduce(b, nranks, rank, request.root);
      break;
    case Collective::kReduceScatter:
      reduce_scatter(b, nranks, rank, false);
      break;
    case Collective::kReduceScatterV:
      reduce_scatter(b, nranks, rank, true);
      break;
    case Collective::kAllToAll:
    case Collective::kAllToAllV:
      all_to_all(b, nranks, rank);
      break;
    default:
      all_gather(b, nranks, rank);
      break;
  }
  return b.finish();
}

}  // namespace libcomm::oneshot
