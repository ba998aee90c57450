// The exchange that one-shot, two-shot and pairwise have in common: everyone with everyone, without
// intermediate ranks. Peers are taken in rotated order, so that no rank is everybody's first.
#pragma once

#include <vector>

#include "src/schedule/builder.h"

namespace libcomm::direct {

// A scratch bank per other rank: as many ranks as there are bank numbers, and itself.
inline constexpr int kMaxRanks = 256;

// The bank that holds what `peer` sent to `rank`.
inline int bank_of(int peer, int rank) { return peer < rank ? peer : peer - 1; }

// To each other rank: `at(chunk, stride)` walks the peers' numbers.
template <typename At>
void send_to_all(Builder& b, int nranks, int rank, At source) {
  b.repeat(nranks - 1, [&] { b.send({rank + 1, 1}, source(rank + 1, 1)); });
}

template <typename At>
void recv_from_all(Builder& b, int nranks, int rank, At destination) {
  b.repeat(nranks - 1, [&] { b.recv({rank - 1, -1}, destination(rank - 1, -1)); });
}

// Collects `chunk` from every other rank, one bank each, and reduces all contributions in rank
// order in one step, so that narrow floats are rounded once.
inline void reduce_from_all(Builder& b, int nranks, int rank, int chunk, Ref result) {
  for (int i = 1; i < nranks; ++i) {
    const int peer = modulo(rank - i, nranks);
    b.recv(peer, scratch(bank_of(peer, rank), chunk));
  }
  std::vector<Ref> operands;
  for (int peer = 0; peer < nranks; ++peer)
    operands.push_back(peer == rank ? in(chunk) : scratch(bank_of(peer, rank), chunk));
  b.reduce(result, operands).final = true;
}

}  // namespace libcomm::direct
