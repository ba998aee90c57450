// Bruck: log2 p rounds for any number of ranks, at the price of moving blocks more than once.
//
// All-gather: a rank holds the blocks rank .. rank+m-1 (modulo p); in each round it doubles m by
// receiving the next m from the rank m after it. All-to-all: a block that must travel a distance d
// makes the hop 2^i in round i for every bit i of d; blocks that hop together travel in one
// message. Source: Bruck, Ho, Kipnis, Upfal and Weathersby, "Efficient algorithms for all-to-all
// communications in multiport message-passing systems", IEEE TPDS 8 (1997). Cost, n the block:
// all-gather log2(p) a + (p-1) n b; all-to-all log2(p) (a + p/2 n b).
#include <algorithm>

#include "src/schedule/builder.h"

namespace libcomm::bruck {

namespace {

// The blocks first .. first + count - 1 modulo n, as one or two runs that do not wrap.
template <typename Use>
void for_runs(int first, int count, int n, Use use) {
  first = modulo(first, n);
  const int head = std::min(count, n - first);
  use(first, head);
  if (count > head) use(0, count - head);
}

void all_gather(Builder& b, int n, int rank) {
  b.copy(in(0), out(rank));
  for (int held = 1; held < n; held *= 2) {
    const int count = std::min(held, n - held);
    for_runs(rank, count, n, [&](int first, int run) { b.send(rank - held, out(first), run); });
    for_runs(rank + held, count, n,
             [&](int first, int run) { b.recv(rank + held, out(first), run); });
  }
}

void all_to_all(Builder& b, int n, int rank) {
  constexpr int kPlace = 0;    // bank: slot d holds the block that still has to travel as d says
  constexpr int kPacked = 1;   // bank: what leaves in this round
  constexpr int kArrived = 2;  // bank: what came in this round
  // 1. Rotate: slot d is the block for the rank d after this one.
  int at = 0;
  for_runs(rank, n, n, [&](int first, int run) {
    b.copy(in(first), scratch(kPlace, at), run);
    at += run;
  });
  // 2. One hop per bit of the distance. The slots with bit set come in stretches of 2^i.
  for (int hop = 1; hop < n; hop *= 2) {
    auto for_stretches = [&](auto use) {
      int packed = 0;
      for (int slot = hop; slot < n; slot += 2 * hop) {
        const int run = std::min(hop, n - slot);
        use(slot, packed, run);
        packed += run;
      }
      return packed;
    };
    const int count = for_stretches([&](int slot, int packed, int run) {
      b.copy(scratch(kPlace, slot), scratch(kPacked, packed), run);
    });
    b.send(rank + hop, scratch(kPacked, 0), count);
    b.recv(rank - hop, scratch(kArrived, 0), count);
    for_stretches([&](int slot, int packed, int run) {
      b.copy(scratch(kArrived, packed), scratch(kPlace, slot), run);
    });
  }
  // 3. Slot d has come from the rank d before this one.
  b.repeat(n, [&] { b.copy(scratch(kPlace, 0, 1), out(rank, -1)); });
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  return request.collective == Collective::kAllToAll ||
         request.collective == Collective::kAllGather ||
         request.collective == Collective::kAllGatherV;
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("bruck", request);
  Builder b("bruck", request, rank, 1);
  b.has_runs();
  if (request.collective == Collective::kAllToAll)
    all_to_all(b, request.nranks, rank);
  else
    all_gather(b, request.nranks, rank);
  return b.finish();
}

}  // namespace libcomm::bruck
