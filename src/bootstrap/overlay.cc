#include "src/bootstrap/overlay.h"

#include <algorithm>

namespace libcomm {

std::set<int> overlay_neighbours(int rank, int nranks) {
  std::set<int> neighbours = {(rank + 1) % nranks, (rank + nranks - 1) % nranks};
  if (rank > 0) neighbours.insert((rank - 1) / 2);
  for (int child : {2 * rank + 1, 2 * rank + 2})
    if (child < nranks) neighbours.insert(child);
  neighbours.erase(rank);
  return neighbours;
}

int ring_successor(const std::vector<int>& members, const std::set<int>& left, int rank) {
  const auto self = std::lower_bound(members.begin(), members.end(), rank);
  const size_t start = static_cast<size_t>(self - members.begin());
  for (size_t i = 1; i < members.size(); ++i) {
    const int candidate = members[(start + i) % members.size()];
    if (!left.contains(candidate)) return candidate;
  }
  return rank;
}

}  // namespace libcomm
