// Hierarchical: inside a host, then between hosts, then inside again, so that no byte crosses the
// network more often than it must, and every local rank drives its share of the network.
//
// All-reduce: the vector has one shard per representative (hosts.h). Inside a host each
// representative adds up its shard; representatives of a shard on all hosts make a ring; then they
// hand the shard to their host. Reduce-scatter and all-gather do the same with sets of blocks
// instead of shards; broadcast and reduce are two binomial trees, between one leader per host and
// inside a host. Source: the usual two-level scheme, e.g. Traeff and Hunold, "Decomposing MPI
// collectives for exploiting multi-lane communication", IEEE CLUSTER 2020. Cost for all-reduce on h
// hosts of m ranks: 2(m-1) local and 2(h-1) network messages; bytes per rank on the network
// 2(h-1)/h n/m.
#include <ranges>

#include "algorithms/binomial.h"
#include "algorithms/hosts.h"

namespace libcomm::hierarchical {

namespace {

// ---- All-reduce ---------------------------------------------------------------------------------

// The steps of one lane. Shard s is a run of one chunk per host, starting at shard(s).
void all_reduce(Builder& b, const Hosts& hosts, int lane) {
  const int h = hosts.count();
  const int local = hosts.local_size();
  const int share = hosts.index;
  auto shard = [&](int s) { return (lane * hosts.shares + s) * h; };

  // 1. Every shard to its representative on this host, which adds up its own.
  for (int i = 1; i < local; ++i) {
    const int s = modulo(share + i, local);
    if (s < hosts.shares) b.send(hosts.neighbour(s), in(shard(s)), h);
  }
  if (hosts.is_representative()) {
    auto held = in;
    for (int i = 1; i < local; ++i) {
      b.recv_reduce(hosts.neighbour(share - i), held(shard(share), 0), out(shard(share)), h).final =
          h == 1 && i == local - 1;
      held = out;
    }
    // 2. A ring of the shard's representatives: reduce-scatter, then all-gather, a chunk per host.
    auto chunk = [&](int j) { return shard(share) + modulo(j, h); };
    const int at = hosts.here;
    if (h > 1) {
      const int next = hosts.representative(at + 1, share);
      const int prev = hosts.representative(at - 1, share);
      b.send(next, held(chunk(at), 0));
      for (int i = 1; i < h; ++i)
        b.recv_reduce_send(prev, held(chunk(at - i), 0), out(chunk(at - i)), next).final =
            i == h - 1;
      for (int i = 0; i < h - 2; ++i) b.recv_copy_send(prev, out(chunk(at - i)), next);
      b.recv(prev, out(chunk(at + 2)));
    }
    // 3. The complete shard to everyone on this host.
    for (int i = 1; i < local; ++i) b.send(hosts.neighbour(share + i), out(shard(share)), h);
  }
  for (int i = 1; i < local; ++i) {
    const int s = modulo(share - i, local);
    if (s < hosts.shares) b.recv(hosts.neighbour(s), out(shard(s)), h);
  }
}

// ---- All-gather ---------------------------------------------------------------------------------

// The share `share` of the blocks of all hosts as they pass by this host: its own first.
template <typename Use>
void for_passing_blocks(const Hosts& hosts, int first_host, int share, Use use) {
  for (int i = 0; i < hosts.count(); ++i) {
    const int host = modulo(first_host - i, hosts.count());
    for (int block : hosts.group(host, share)) use(host, block);
  }
}

void all_gather(Builder& b, const Hosts& hosts) {
  const int at = hosts.here;
  const int share = hosts.index;
  // 1. Extras give their block to the representative that carries it.
  if (!hosts.is_representative()) b.send(hosts.representative(at, share % hosts.shares), in(0));
  b.copy(in(0), out(hosts.rank));
  if (hosts.is_representative()) {
    for (int extra : hosts.group(at, share) | std::views::drop(1)) b.recv(extra, out(extra));
    // 2. A ring of the share's representatives; what comes by goes to everyone on this host as
    // well.
    const int next = hosts.representative(at + 1, share);
    const int prev = hosts.representative(at - 1, share);
    for_passing_blocks(hosts, at, share, [&](int host, int block) {
      const bool goes_on = host != modulo(at + 1, hosts.count());
      if (host != at) b.recv(prev, out(block));
      if (goes_on && hosts.count() > 1) b.send(next, out(block));
      for (int i = 1; i < hosts.local_size(); ++i) {
        const int peer = hosts.neighbour(share + i);
        if (peer != block) b.send(peer, out(block));
      }
    });
  }
  // 3. Take the other shares from their representatives.
  for (int i = 1; i < hosts.local_size(); ++i) {
    const int s = modulo(share - i, hosts.local_size());
    if (s >= hosts.shares) continue;
    for_passing_blocks(hosts, at, s, [&](int, int block) {
      if (block != hosts.rank) b.recv(hosts.neighbour(s), out(block));
    });
  }
}

// ---- Reduce-scatter -----------------------------------------------------------------------------

void reduce_scatter(Builder& b, const Hosts& hosts) {
  const int at = hosts.here;
  const int h = hosts.count();
  const int share = hosts.index;
  const int local = hosts.local_size();
  // 1. Every block to the local representative of its share, in the order in which that one needs
  // them.
  for (int i = 1; i < local; ++i) {
    const int s = modulo(share + i, local);
    if (s >= hosts.shares) continue;
    for_passing_blocks(hosts, at - 1, s,
                       [&](int, int block) { b.send(hosts.neighbour(s), in(block)); });
  }
  if (!hosts.is_representative()) {
    b.recv(hosts.representative(at, share % hosts.shares), out(0));
    return;
  }
  // 2. Add up a block's local contributions, then pass it round the ring of the share's
  //    representatives: a host's own blocks come last and end there.
  const int next = hosts.representative(at + 1, share);
  const int prev = hosts.representative(at - 1, share);
  for_passing_blocks(hosts, at - 1, share, [&](int host, int block) {
    const bool ends_here = host == at;
    const Ref sum = block == hosts.rank ? out(0) : scratch(0, block);
    Ref held = in(block);
    for (int i = 1; i < local; ++i) {
      b.recv_reduce(hosts.neighbour(share - i), held, sum).final = h == 1 && i == local - 1;
      held = sum;
    }
    if (host == modulo(at - 1, h) && h > 1) {
      b.send(next, held);
    } else if (h > 1) {
      b.recv_reduce(prev, held, sum).final = ends_here;
      if (!ends_here) b.send(next, sum);
    }
    // 3. An extra's block goes to the extra.
    if (ends_here && block != hosts.rank) b.send(block, sum);
  });
}

// ---- Broadcast and reduce -----------------------------------------------------------------------

// This rank's neighbours in the two trees: the leaders' tree comes first on the way down.
struct Trees {
  Trees(const Hosts& hosts, int root, int root_host) {
    auto leader = [&](int host) {
      return modulo(host, hosts.count()) == root_host ? root : hosts.representative(host, 0);
    };
    const int my_leader = leader(hosts.here);
    const auto found = std::find(hosts.local().begin(), hosts.local().end(), my_leader);
    const int leader_index = static_cast<int>(found - hosts.local().begin());
    const binomial::Node inside = binomial::find_node(
        modulo(hosts.index - leader_index, hosts.local_size()), hosts.local_size());
    if (inside.parent >= 0) {
      parent = hosts.neighbour(inside.parent + leader_index);
    } else {
      const binomial::Node between =
          binomial::find_node(modulo(hosts.here - root_host, hosts.count()), hosts.count());
      if (between.parent >= 0) parent = leader(between.parent + root_host);
      for (int child : std::views::reverse(between.children))
        children.push_back(leader(child + root_host));
    }
    for (int child : std::views::reverse(inside.children))
      children.push_back(hosts.neighbour(child + leader_index));
  }
  int parent = -1;
  std::vector<int> children;  // the farthest and largest first
};

void broadcast(Builder& b, const Trees& trees) {
  const bool is_root = trees.parent < 0;
  if (!is_root) b.recv(trees.parent, out(0));
  for (int child : trees.children) b.send(child, is_root ? in(0) : out(0));
  if (is_root) b.copy(in(0), out(0));
}

void reduce(Builder& b, const Trees& trees) {
  const bool is_root = trees.parent < 0;
  const Ref sum = is_root ? out(0) : scratch(0, 0);
  Ref held = in(0);
  for (size_t i = trees.children.size(); i-- > 0;) {
    const int child = trees.children[i];
    if (i == 0 && !is_root) {
      b.recv_reduce_send(child, held, nowhere(), trees.parent);
      return;
    }
    b.recv_reduce(child, held, sum).final = is_root && i == 0;
    held = sum;
  }
  if (!is_root) b.send(trees.parent, held);
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
  if (request.nranks == 1) return single_rank("hierarchical", request);
  const Hosts hosts(request, rank);
  if (request.collective == Collective::kAllReduce) {
    Builder b("hierarchical", request, rank, request.lanes * hosts.shares * hosts.count());
    if (hosts.count() > 1) b.has_runs();
    for (int lane = 0; lane < request.lanes; ++lane) {
      b.lane(lane);
      all_reduce(b, hosts, lane);
    }
    return b.finish();
  }
  Builder b("hierarchical", request, rank, 1);
  switch (request.collective) {
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
      reduce_scatter(b, hosts);
      break;
    case Collective::kBroadcast:
    case Collective::kReduce: {
      const int root_host =
          request.host_of.empty() ? 0 : request.host_of[static_cast<size_t>(request.root)];
      const Trees trees(hosts, request.root, root_host);
      if (request.collective == Collective::kBroadcast)
        broadcast(b, trees);
      else
        reduce(b, trees);
      break;
    }
    default:
      all_gather(b, hosts);
      break;
  }
  return b.finish();
}

}  // namespace libcomm::hierarchical
