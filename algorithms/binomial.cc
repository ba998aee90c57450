// Binomial tree: log2 p rounds for the rooted collectives.
//
// Broadcast: whoever has the data sends it to the root of the largest subtree that has not; reduce
// is the same backwards. Gather and scatter move a subtree's blocks together. Source: the classical
// algorithm, as in Thakur, Rabenseifner and Gropp 2005. Cost: log2(p) (a + n b) for broadcast and
// reduce; log2(p) a + (p-1) n b for gather and scatter, n the block.
#include "algorithms/binomial.h"

#include <algorithm>
#include <ranges>

#include "src/schedule/builder.h"

namespace libcomm::binomial {

namespace {

// Where this rank stands: node numbers count from the root.
struct Place {
  int n;
  int root;
  int rank;
  Node node;
  int rank_of(int v) const { return modulo(int64_t{v} + root, n); }
  bool is_root() const { return node.parent < 0; }
  int parent() const { return rank_of(node.parent); }

  // The blocks of node v's subtree, as one or two runs of ranks that do not wrap.
  template <typename Use>
  void for_blocks(int v, Use use) const {
    const int count = subtree_size(v, n);
    const int first = rank_of(v);
    const int head = std::min(count, n - first);
    use(first, head);
    if (count > head) use(0, count - head);
  }
};

void broadcast(Builder& b, const Place& at) {
  const Ref held = at.is_root() ? in(0) : out(0);
  if (!at.is_root()) b.recv(at.parent(), out(0));
  for (int child : std::views::reverse(at.node.children)) b.send(at.rank_of(child), held);
  if (at.is_root()) b.copy(in(0), out(0));
}

void reduce(Builder& b, const Place& at) {
  const std::vector<int>& children = at.node.children;
  const Ref sum = at.is_root() ? out(0) : scratch(0, 0);
  Ref held = in(0);
  for (size_t i = 0; i < children.size(); ++i) {
    const bool last = i + 1 == children.size();
    const int child = at.rank_of(children[i]);
    if (last && !at.is_root()) {
      b.recv_reduce_send(child, held, nowhere(), at.parent());
      return;
    }
    b.recv_reduce(child, held, sum).final = last;
    held = sum;
  }
  if (!at.is_root()) b.send(at.parent(), held);
}

void gather(Builder& b, const Place& at) {
  if (!at.is_root() && at.node.children.empty()) {
    b.send(at.parent(), in(0));
    return;
  }
  auto place = [&](int block) { return at.is_root() ? out(block) : scratch(0, block); };
  b.copy(in(0), place(at.rank));
  for (int child : at.node.children)
    at.for_blocks(child,
                  [&](int first, int count) { b.recv(at.rank_of(child), place(first), count); });
  if (at.is_root()) return;
  at.for_blocks(modulo(at.rank - at.root, at.n),
                [&](int first, int count) { b.send(at.parent(), place(first), count); });
}

void scatter(Builder& b, const Place& at) {
  if (!at.is_root() && at.node.children.empty()) {
    b.recv(at.parent(), out(0));
    return;
  }
  auto place = [&](int block) { return at.is_root() ? in(block) : scratch(0, block); };
  if (!at.is_root()) {
    at.for_blocks(modulo(at.rank - at.root, at.n),
                  [&](int first, int count) { b.recv(at.parent(), place(first), count); });
  }
  for (int child : std::views::reverse(at.node.children))
    at.for_blocks(child,
                  [&](int first, int count) { b.send(at.rank_of(child), place(first), count); });
  b.copy(place(at.rank), out(0));
}

}  // namespace

bool supports(const ScheduleRequest& request) {
  switch (request.collective) {
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
  const int n = request.nranks;
  if (n == 1) return single_rank("binomial", request);
  const Place at{n, request.root, rank, find_node(modulo(rank - request.root, n), n)};
  Builder b("binomial", request, rank, 1);
  if (request.collective == Collective::kGather || request.collective == Collective::kScatter)
    b.has_runs();
  switch (request.collective) {
    case Collective::kBroadcast:
      broadcast(b, at);
      break;
    case Collective::kReduce:
      reduce(b, at);
      break;
    case Collective::kGather:
      gather(b, at);
      break;
    default:
      scatter(b, at);
      break;
  }
  return b.finish();
}

}  // namespace libcomm::binomial
