// Ring: every rank talks to two neighbours only, and every link is busy all the time.
//
// Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
// workstations", JPDC 69 (2009). Broadcast and reduce are the pipelined chain: slices follow each
// other down it. Cost for n bytes on p ranks (a: latency, b: time per byte):
//   all-reduce                   2(p-1)a + 2(p-1)/p n b     optimal in bytes
//   all-gather, reduce-scatter    (p-1)a +  (p-1)/p n b     n: the whole vector
//   broadcast, reduce, s slices   (p-2+s)(a + n b / s)
#include "src/schedule/builder.h"

namespace libcomm::ring {

namespace {

// This rank's place in the ring. Ring order follows locality (ScheduleRequest::ring_order).
struct Place {
  Place(const ScheduleRequest& request, int rank)
      : order(request.ring_order), n(request.nranks), position(rank) {
    for (size_t i = 0; i < order.size(); ++i)
      if (order[i] == rank) position = static_cast<int>(i);
    next = rank_at(position + 1);
    prev = rank_at(position - 1);
  }
  int rank_at(int place) const {
    const int i = modulo(place, n);
    return order.empty() ? i : order[static_cast<size_t>(i)];
  }
  int position_of(int rank) const {
    for (size_t i = 0; i < order.size(); ++i)
      if (order[i] == rank) return static_cast<int>(i);
    return rank;
  }

  const std::vector<int>& order;
  int n;
  int position;
  int next = 0;
  int prev = 0;
};

// Blocks of the ranks at `first`, `first` - 1, ... in ring order, one per round, as chunks of lane
// `l` of `lanes`. `step(chunk, stride, odd)` writes the step of a round. In rank order the rounds
// are one repeat of two rounds each (the halves of a double buffer), else they are written out.
template <typename Step>
void for_blocks(Builder& b, const Place& at, int first, int times, int l, int lanes, Step step) {
  if (!at.order.empty()) {
    for (int i = 0; i < times; ++i) step(at.rank_at(first - i) * lanes + l, 0, i % 2);
    return;
  }
  const int chunk = modulo(first, at.n) * lanes + l;
  b.repeat(times / 2, [&] {
    step(chunk, -2 * lanes, 0);
    step(chunk - lanes, -2 * lanes, 1);
  });
  if (times % 2 == 1) step(chunk - (times - 1) * lanes, 0, 0);
}

void all_reduce(Builder& b, const Place& at, int l, int lanes) {
  const int n = at.n;
  // Chunks go by position, whatever the order of ranks: part j of the vector in lane l.
  auto part = [&](int j) { return modulo(j, n) * lanes + l; };
  // 1. Start the partial sum of this position's part on its way round.
  b.send(at.next, in(part(at.position)));
  // 2. Add to the partial sums that come by. They are kept in the output until the result
  // overwrites
  //    them, so that a receive never waits for the link ahead.
  const int first = part(at.position - 1);
  b.repeat(n - 2,
           [&] { b.recv_reduce_send(at.prev, in(first, -lanes), out(first, -lanes), at.next); });
  // 3. The part that has been everywhere is complete here; send it round a second time.
  const int own = part(at.position + 1);
  b.recv_reduce_send(at.prev, in(own), out(own), at.next).final = true;
  // 4. Keep and pass on the complete parts; the last one ends here.
  const int second = part(at.position);
  b.repeat(n - 2, [&] { b.recv_copy_send(at.prev, out(second, -lanes), at.next); });
  b.recv(at.prev, out(part(at.position + 2)));
}

void reduce_scatter(Builder& b, const Place& at, int rank, int l, int lanes, bool sizes_differ) {
  // 1. Start the previous rank's block on its way: it arrives there last.
  b.send(at.next, in(at.rank_at(at.position - 1) * lanes + l));
  // 2. Add to the partial sums that come by. Two blocks of scratch take turns: a block is free
  // again
  //    when the next rank has taken what it held, one round later. Blocks of different sizes each
  //    have their own place.
  for_blocks(b, at, at.position - 2, at.n - 2, l, lanes, [&](int chunk, int stride, int odd) {
    const Ref keep = sizes_differ ? scratch(0, chunk, stride) : scratch(0, odd * lanes + l);
    b.recv_reduce_send(at.prev, in(chunk, stride), keep, at.next);
  });
  // 3. This rank's own block ends here.
  b.recv_reduce(at.prev, in(rank * lanes + l), out(l)).final = true;
}

void all_gather(Builder& b, const Place& at, int rank, int l, int lanes) {
  // 1. Send the own block round and keep it.
  b.send(at.next, in(l));
  b.copy(in(l), out(rank * lanes + l));
  // 2. Keep and pass on; the last block ends here.
  for_blocks(b, at, at.position - 1, at.n - 2, l, lanes, [&](int chunk, int stride, int) {
    b.recv_copy_send(at.prev, out(chunk, stride), at.next);
  });
  b.recv(at.prev, out(at.rank_at(at.position + 1) * lanes + l));
}

void broadcast(Builder& b, const Place& at, int distance, int l) {
  if (distance == 0) {
    b.send(at.next, in(l));
    b.copy(in(l), out(l));
  } else if (distance < at.n - 1) {
    b.recv_copy_send(at.prev, out(l), at.next);
  } else {
    b.recv(at.prev, out(l));
  }
}

// The chain runs against the ring: the root's successor is the last to add.
void reduce(Builder& b, const Place& at, int distance, int l) {
  if (distance == 0) {
    b.recv_reduce(at.next, in(l), out(l)).final = true;
  } else if (distance < at.n - 1) {
    b.recv_reduce_send(at.next, in(l), nowhere(), at.prev);
  } else {
    b.send(at.prev, in(l));
  }
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  switch (request.collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
    case Collective::kAllGather:
    case Collective::kAllGatherV:
    case Collective::kBroadcast:
    case Collective::kReduce:
      return true;
    default:
      return false;
  }
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("ring", request);
  const Place at(request, rank);
  const int lanes = request.lanes;
  const int distance = modulo(at.position - at.position_of(request.root), at.n);
  const bool whole = request.collective == Collective::kAllReduce;
  Builder b("ring", request, rank, whole ? at.n * lanes : lanes);
  for (int l = 0; l < lanes; ++l) {
    b.lane(l);
    switch (request.collective) {
      case Collective::kAllReduce:
        all_reduce(b, at, l, lanes);
        break;
      case Collective::kReduceScatter:
        reduce_scatter(b, at, rank, l, lanes, false);
        break;
      case Collective::kReduceScatterV:
        reduce_scatter(b, at, rank, l, lanes, true);
        break;
      case Collective::kBroadcast:
        broadcast(b, at, distance, l);
        break;
      case Collective::kReduce:
        reduce(b, at, distance, l);
        break;
      default:
        all_gather(b, at, rank, l, lanes);
        break;
    }
  }
  return b.finish();
}

}  // namespace libcomm::ring
