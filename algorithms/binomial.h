// The binomial tree: node v's parent is v without its lowest bit; its subtree is the nodes
// v .. v + size - 1, so that gather and scatter move consecutive blocks.
#pragma once

#include <vector>

namespace libcomm::binomial {

struct Node {
  int parent = -1;            // -1 at node 0
  std::vector<int> children;  // smallest subtree first
  int size = 0;               // nodes of the subtree
};

inline int subtree_size(int v, int n) {
  const int left = n - v;
  if (v == 0) return n;
  const int bit = v & -v;
  return bit < left ? bit : left;
}

inline Node find_node(int v, int n) {
  Node node;
  node.size = subtree_size(v, n);
  if (v != 0) node.parent = v & (v - 1);
  for (int bit = 1; (v & bit) == 0 && v + bit < n; bit *= 2) node.children.push_back(v + bit);
  return node;
}

}  // namespace libcomm::binomial
