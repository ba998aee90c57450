// The overlay: which ranks keep control links with which.
//
// Links run along a heap-shaped tree (news reaches everyone in O(log n) hops) and a ring over all
// ranks. Ranks of one host additionally form a ring of their own, so that each has a neighbour who
// can watch its process. A rank has at most seven links. When a rank leaves in good order its ring
// predecessor links to the next one that is there, so those who stay remain connected; tree links
// are not replaced. All of it is a pure function of rank and size, known to everybody.
#pragma once

#include <set>
#include <vector>

namespace libcomm {

// Neighbours in the tree and the ring; symmetric, without `rank` itself. The higher rank of a pair
// opens the link.
std::set<int> overlay_neighbours(int rank, int nranks);

// The next of `members` after `rank`, cyclically, that is not in `left`; `rank` itself when there
// is none. `members` is ascending and holds `rank`.
int ring_successor(const std::vector<int>& members, const std::set<int>& left, int rank);

}  // namespace libcomm
