// Halving-doubling (hd): recursive vector halving with distance doubling, then the way back.
//
// All-reduce: in round i a rank exchanges half of what it still holds with the rank 2^i away and
// adds; after log2 p rounds each holds one complete part, and the same rounds backwards gather the
// parts. The largest messages go to the nearest ranks. Reduce-scatter halves the distance as well,
// so that block r ends at rank r; all-gather is its mirror. Other rank counts fold (fold.h).
// Source: Rabenseifner, "Optimization of collective reduction operations", ICCS 2004; Thakur et al.
// 2005. Cost: 2 log2(p) a + 2(p-1)/p n b for all-reduce, half of it for the others; a fold adds 2a
// + 2nb.
#include <algorithm>

#include "algorithms/fold.h"
#include "src/schedule/builder.h"

namespace libcomm::hd {

namespace {

struct Range {
  int first;
  int count;
};

void all_reduce(Builder& b, const Fold& fold) {
  const int parts = fold.size;
  if (fold.extra) {
    b.send(fold.partner, in(0), parts);
    b.recv(fold.partner, out(0), parts);
    return;
  }
  // 1. Take in the extra rank's contribution. Before the first addition the data is in the input,
  // after
  //    it in the output.
  auto held = in;
  if (fold.paired) {
    b.recv_reduce(fold.partner, in(0), out(0), parts);
    held = out;
  }
  // 2. Halve: send one half of the range, add to the other.
  Range range{0, parts};
  std::vector<Range> given;
  for (int distance = 1; distance < parts; distance *= 2) {
    const int peer = fold.rank_of(fold.virtual_rank ^ distance);
    const int half = range.count / 2;
    const bool upper = (fold.virtual_rank & distance) != 0;
    const Range keep{range.first + (upper ? half : 0), half};
    const Range give{range.first + (upper ? 0 : half), half};
    b.send(peer, held(give.first, 0), half);
    b.recv_reduce(peer, held(keep.first, 0), out(keep.first), half).final = half == 1;
    held = out;
    given.push_back(give);
    range = keep;
  }
  // 3. Double: the same peers backwards, each returns the half that it was given.
  for (int distance = parts / 2; distance >= 1; distance /= 2) {
    const int peer = fold.rank_of(fold.virtual_rank ^ distance);
    const Range back = given.back();
    given.pop_back();
    b.send(peer, out(range.first), range.count);
    b.recv(peer, out(back.first), back.count);
    range = {std::min(range.first, back.first), range.count + back.count};
  }
  // 4. Give the extra rank the result.
  if (fold.paired) b.send(fold.partner, out(0), parts);
}

// The blocks of virtual ranks v .. v + count - 1.
Range blocks(const Fold& fold, int v, int count) {
  return {fold.first(v), fold.first(v + count) - fold.first(v)};
}

void reduce_scatter(Builder& b, const Fold& fold, int nranks, int rank) {
  if (fold.extra) {
    b.send(fold.partner, in(0), nranks);
    b.recv(fold.partner, out(0));
    return;
  }
  // 1. Take in the extra rank's contribution.
  if (fold.paired) b.recv_reduce(fold.partner, in(0), scratch(0, 0), nranks);
  // 2. Halve until two virtual ranks are left.
  int v = 0;  // the range of virtual ranks still held: [v, v + 2 * distance)
  int distance = fold.size / 2;
  bool first_round = true;
  for (; distance > 1; distance /= 2) {
    const bool upper = (fold.virtual_rank & distance) != 0;
    const int peer = fold.rank_of(fold.virtual_rank ^ distance);
    const Range keep = blocks(fold, upper ? v + distance : v, distance);
    const Range give = blocks(fold, upper ? v : v + distance, distance);
    const bool from_input = first_round && !fold.paired;
    b.send(peer, from_input ? in(give.first) : scratch(0, give.first), give.count);
    b.recv_reduce(peer, from_input ? in(keep.first) : scratch(0, keep.first),
                  scratch(0, keep.first), keep.count);
    first_round = false;
    if (upper) v += distance;
  }
  // 3. The last round goes block by block: a rank's own block to its output, the extra rank's block
  //    straight on to it.
  const bool from_input = first_round && !fold.paired;
  auto source = [&](int block) { return from_input ? in(block) : scratch(0, block); };
  const int peer_v = fold.virtual_rank ^ 1;
  const int peer = fold.rank_of(peer_v);
  const Range give = blocks(fold, peer_v, 1);
  for (int i = 0; i < give.count; ++i) b.send(peer, source(give.first + i));
  b.recv_reduce(peer, source(rank), out(0)).final = true;
  if (fold.paired)
    b.recv_reduce_send(peer, source(rank + 1), scratch(0, rank + 1), fold.partner).final = true;
}

void all_gather(Builder& b, const Fold& fold, int nranks, int rank) {
  if (fold.extra) {
    // 0. Hand the block over, receive all others: those before this rank's and those after.
    b.send(fold.partner, in(0));
    b.copy(in(0), out(rank));
    b.recv(fold.partner, out(0), rank);
    if (rank + 1 < nranks) b.recv(fold.partner, out(rank + 1), nranks - rank - 1);
    return;
  }
  // 1. Keep the own block and the extra rank's.
  b.copy(in(0), out(rank));
  if (fold.paired) b.recv(fold.partner, out(rank + 1));
  // 2. Double: exchange everything held with the rank 2^i away.
  for (int distance = 1; distance < fold.size; distance *= 2) {
    const int mine = fold.virtual_rank & ~(distance - 1);
    const int theirs = mine ^ distance;
    const int peer = fold.rank_of(fold.virtual_rank ^ distance);
    const Range give = blocks(fold, mine, distance);
    const Range take = blocks(fold, theirs, distance);
    b.send(peer, out(give.first), give.count);
    b.recv(peer, out(take.first), take.count);
  }
  // 3. The extra rank gets the others' blocks.
  if (!fold.paired) return;
  const int extra = fold.partner;
  b.send(extra, out(0), extra);
  if (extra + 1 < nranks) b.send(extra, out(extra + 1), nranks - extra - 1);
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  switch (request.collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
    case Collective::kAllGather:
    case Collective::kAllGatherV:
      return true;
    default:
      return false;
  }
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("hd", request);
  const Fold fold(request.nranks, rank);
  if (request.collective == Collective::kAllReduce) {
    Builder b("hd", request, rank, fold.size);
    if (request.nranks > 2) b.has_runs();
    all_reduce(b, fold);
    return b.finish();
  }
  Builder b("hd", request, rank, 1);
  if (request.nranks > 2) b.has_runs();
  if (request.collective == Collective::kReduceScatter ||
      request.collective == Collective::kReduceScatterV)
    reduce_scatter(b, fold, request.nranks, rank);
  else
    all_gather(b, fold, request.nranks, rank);
  return b.finish();
}

}  // namespace libcomm::hd
