// Which ranks take part when an algorithm wants a power of two: the fold.
//
// Of p ranks, 2^k is the largest power of two. The first 2(p - 2^k) ranks form pairs; the odd one
// of a pair (the extra) hands its part to the even one and waits for the result. The others have a
// virtual rank in 0..2^k-1. Virtual rank v stands for the consecutive ranks first(v) ..
// first(v+1)-1. Source: Thakur, Rabenseifner and Gropp, "Optimization of collective communication
// operations in MPICH", IJHPCA 19 (2005).
#pragma once

namespace libcomm {

struct Fold {
  Fold(int nranks, int rank) {
    while (size * 2 <= nranks) size *= 2;
    pairs = nranks - size;
    paired = rank < 2 * pairs;
    extra = paired && rank % 2 == 1;
    partner = extra ? rank - 1 : rank + 1;
    virtual_rank = paired ? rank / 2 : rank - pairs;
  }
  int first(int v) const { return v <= pairs ? 2 * v : v + pairs; }
  int rank_of(int v) const { return first(v); }

  int size = 1;  // the power of two
  int pairs = 0;
  bool paired = false;
  bool extra = false;
  int partner = 0;  // the other one of the pair, if paired
  int virtual_rank = 0;
};

}  // namespace libcomm
