// Tree: two binary trees at once, each with half of the data, so that every rank's two directions
// are busy; few rounds and full bandwidth in the middle ground between a ring and a star.
//
// Rank `hub` (the root) stands above both trees; the other n = p - 1 ranks are numbered 1..n. The
// first tree is the in-order binary tree over 1..n, in which odd numbers are leaves; the second is
// its mirror image, or for odd n its rotation, in which (nearly) all ranks that were inner nodes
// are leaves. Source: Sanders, Speck and Traeff, "Two-tree algorithms for full bandwidth broadcast,
// reduction and scan", Parallel Computing 35 (2009). Cost with k pieces in flight: (k + 2 log2 p)(a
// + n b / k) one way, twice the bytes for all-reduce.
#include <algorithm>
#include <array>
#include <span>

#include "src/schedule/builder.h"

namespace libcomm::tree {

namespace {

struct Node {
  int parent = -1;  // -1 at the hub
  std::array<int, 2> child = {-1, -1};
  std::span<const int> children() const {
    return {child.data(), static_cast<size_t>((child[0] >= 0) + (child[1] >= 0))};
  }
};

// The in-order tree over 1..n; 0 is the hub.
Node in_order(int v, int n) {
  Node node;
  if (v == 0) {
    int top = 1;
    while (top * 2 <= n) top *= 2;
    node.child[0] = top;
    return node;
  }
  const int bit = v & -v;
  node.parent = ((v ^ bit) | (bit << 1)) <= n ? ((v ^ bit) | (bit << 1)) : v ^ bit;
  int half = bit / 2;
  if (half == 0) return node;
  node.child[0] = v - half;
  while (half > 0 && v + half > n) half /= 2;
  if (half > 0) node.child[1] = v + half;
  return node;
}

Node find_node(int rank, int hub, int nranks, int tree) {
  const int n = nranks - 1;
  auto renumber = [&](int v, bool back) {
    if (v <= 0 || tree == 0) return v;
    if (n % 2 == 0) return n + 1 - v;
    return back ? v % n + 1 : (v + n - 2) % n + 1;
  };
  Node node = in_order(renumber(modulo(rank - hub, nranks), false), n);
  auto to_rank = [&](int v) { return v < 0 ? -1 : modulo(renumber(v, true) + hub, nranks); };
  return {to_rank(node.parent), {to_rank(node.child[0]), to_rank(node.child[1])}};
}

// Adds the children's sums to this rank's input; to the parent, or complete at the hub.
void up(Builder& b, const Node& node, int chunk, int stride, bool keep) {
  Ref held = in(chunk, stride);
  const Ref sum = keep ? out(chunk, stride) : scratch(0, chunk, stride);
  const std::span<const int> children = node.children();
  for (size_t i = 0; i < children.size(); ++i) {
    const bool last = i + 1 == children.size();
    if (last && node.parent >= 0) {
      b.recv_reduce_send(children[i], held, keep ? sum : nowhere(), node.parent);
      return;
    }
    b.recv_reduce(children[i], held, sum).final = node.parent < 0;
    held = sum;
  }
  if (node.parent >= 0) b.send(node.parent, held);
}

// From the parent to the children. The hub sends from `source`.
void down(Builder& b, const Node& node, Ref source, int chunk, int stride) {
  if (node.parent >= 0) {
    source = out(chunk, stride);
    b.recv(node.parent, source);
  }
  for (int child : node.children()) b.send(child, source);
}

// Up and down at the same time: piece k goes down while piece k + delay goes up.
void up_and_down(Builder& b, const Node& node, int tree, int pieces, int nranks) {
  int depth = 1;
  while ((1 << depth) < nranks) ++depth;
  const int delay = std::min(pieces, 2 * depth);
  auto chunk = [&](int piece) { return piece * 2 + tree; };
  b.repeat(delay, [&] { up(b, node, chunk(0), 2, true); });
  b.repeat(pieces - delay, [&] {
    up(b, node, chunk(delay), 2, true);
    down(b, node, out(chunk(0), 2), chunk(0), 2);
  });
  b.repeat(delay, [&] { down(b, node, out(chunk(pieces - delay), 2), chunk(pieces - delay), 2); });
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  return request.collective == Collective::kAllReduce ||
         request.collective == Collective::kBroadcast || request.collective == Collective::kReduce;
}

Schedule build(const ScheduleRequest& request, int rank) {
  if (request.nranks == 1) return single_rank("tree", request);
  const bool both_ways = request.collective == Collective::kAllReduce;
  const int pieces = both_ways ? std::max(1, request.pipeline) : 1;
  Builder b("tree", request, rank, 2 * pieces);
  for (int tree = 0; tree < 2; ++tree) {
    b.lane(tree);
    const int hub = both_ways ? 0 : request.root;
    const Node node = find_node(rank, hub, request.nranks, tree);
    if (both_ways) {
      up_and_down(b, node, tree, pieces, request.nranks);
    } else if (request.collective == Collective::kReduce) {
      up(b, node, tree, 0, rank == hub);
    } else {
      down(b, node, in(tree), tree, 0);
      if (rank == hub) b.copy(in(tree), out(tree));
    }
  }
  return b.finish();
}

}  // namespace libcomm::tree
