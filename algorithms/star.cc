// Star: the parameter server. The root talks to everyone, nobody else talks to each other.
//
// The baseline that other algorithms are measured against, and the right choice when only the root
// has good links. The root is rank 0 for all-reduce. Cost at the root: (p-1)(a + n b) each way.
#include "src/schedule/builder.h"

namespace libcomm::star {

namespace {

// Adds everyone's input to the root's, in rank order from the root on.
void collect(Builder& b, int nranks, int root) {
  b.recv_reduce(root + 1, in(0), out(0)).final = nranks == 2;
  b.repeat(nranks - 3, [&] { b.recv_reduce({root + 2, 1}, out(0), out(0)); });
  if (nranks > 2) b.recv_reduce(root - 1, out(0), out(0)).final = true;
}

void root_steps(Builder& b, Collective collective, int nranks, int root) {
  switch (collective) {
    case Collective::kAllReduce:
      collect(b, nranks, root);
      b.repeat(nranks - 1, [&] { b.send({root + 1, 1}, out(0)); });
      break;
    case Collective::kReduce:
      collect(b, nranks, root);
      break;
    case Collective::kBroadcast:
      b.repeat(nranks - 1, [&] { b.send({root + 1, 1}, in(0)); });
      b.copy(in(0), out(0));
      break;
    case Collective::kGather:
      b.copy(in(0), out(root));
      b.repeat(nranks - 1, [&] { b.recv({root + 1, 1}, out(root + 1, 1)); });
      break;
    default:  // scatter
      b.repeat(nranks - 1, [&] { b.send({root + 1, 1}, in(root + 1, 1)); });
      b.copy(in(root), out(0));
      break;
  }
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  switch (request.collective) {
    case Collective::kAllReduce:
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kGather:
    case Collective::kScatter:
      return true;
    default:
      return false;
  }
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("star", request);
  const int root = request.collective == Collective::kAllReduce ? 0 : request.root;
  Builder b("star", request, rank, 1);
  if (rank == root) {
    root_steps(b, request.collective, request.nranks, root);
    return b.finish();
  }
  const bool gives =
      request.collective != Collective::kBroadcast && request.collective != Collective::kScatter;
  const bool gets =
      request.collective != Collective::kReduce && request.collective != Collective::kGather;
  if (gives) b.send(root, in(0));
  if (gets) b.recv(root, out(0));
  return b.finish();
}

}  // namespace libcomm::star
