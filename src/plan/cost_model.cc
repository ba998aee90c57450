#include "src/plan/cost_model.h"

#include <algorithm>

namespace libcomm {
namespace {

// Microseconds per message, per byte moved through a channel, per byte combined.
struct ChannelPrices {
  double message, byte, combined;
};

// The fused exchanges: microseconds per exchange and per peer in it; per byte that a rank puts on
// the board, and takes from it.
struct BoardPrices {
  double exchange, peer, put, taken;
};

struct MachineClass {
  BoardPrices oneshot, reduction, copy;
  ChannelPrices channels[kNumMedia];  // by Medium
};

constexpr double kNs = 1e-3;

// Measured on a virtual machine with two cores of an Intel Xeon (Sapphire Rapids, 2026-11) by
// `comm-tune --verbose` and the *_perf programs: eight collectives of floats, 8 bytes to 8 MiB, two
// ranks for cores of their own, four and eight for ranks that take turns. Each price is a
// compromise over the medians of all of these; most are within a factor of two, and what counts is
// where two ways cross. Combining what arrives costs little more than copying it, hence its low
// price; of ranks that take turns, what one put up is still in the core's cache when the next takes
// it. Their prices are per rank on the core. Networks are priced as sockets within a host, which is
// what was at hand: comm-tune --launched measures a real one.
constexpr MachineClass kOwnCores = {.oneshot = {0, 0.33, 0.10 * kNs, 0.09 * kNs},
                                    .reduction = {1.3, 1.6, 0.08 * kNs, 0.14 * kNs},
                                    .copy = {1.2, 1.2, 0.02 * kNs, 0.09 * kNs},
                                    .channels = {{1.3, 0.17 * kNs, 0.02 * kNs},
                                                 {6.5, 0.30 * kNs, 0.03 * kNs},
                                                 {6.5, 0.30 * kNs, 0.03 * kNs}}};
constexpr MachineClass kSharedCores = {.oneshot = {0, 0.54, 0.07 * kNs, 0.05 * kNs},
                                       .reduction = {0, 1.5, 0.02 * kNs, 0.07 * kNs},
                                       .copy = {0, 1.2, 0.05 * kNs, 0.13 * kNs},
                                       .channels = {{2.0, 0.20 * kNs, 0.05 * kNs},
                                                    {6.5, 0.30 * kNs, 0.03 * kNs},
                                                    {6.5, 0.30 * kNs, 0.03 * kNs}}};

// What the busiest rank does. Where some ranks only send and others only receive, the two copies of
// a byte go on at the same time and count as half a byte each.
struct Work {
  double messages = 0;  // one after the other
  double moved = 0;     // bytes through channels
  double combined = 0;  // bytes
};

// Halving and doubling starts with messages of half the data, which nothing overlaps.
constexpr double kHalving = 1.1;
// A message of many that arrive at one rank, or leave it, at about the same time.
constexpr double kAtOnce = 0.25;

int rounds_of_doubling(int ranks) {
  int rounds = 0;
  for (int reached = 1; reached < ranks; reached *= 2) ++rounds;
  return rounds;
}

// Of recursive doubling among the largest power of two of the ranks.
int rounds_of_powers(int ranks) { return rounds_of_doubling(ranks / 2 + 1); }

// The ranks beyond a power of two hand their data to a partner first and get the result last.
double folded(int ranks) { return (ranks & (ranks - 1)) == 0 ? 0 : 1; }

// `n`: bytes of a block; `piece`: most bytes that a rank holds before it passes them on.
Work work_of(Collective collective, Way way, int nranks, double n, double piece) {
  if (nranks <= 1) return {};
  const double p = nranks;
  const double others = p - 1;
  const double log = rounds_of_doubling(nranks);
  const double powers = rounds_of_powers(nranks);
  const double fold = folded(nranks);
  const double step = std::min(n, piece);
  const double at_once = 1 + kAtOnce * (others - 1);
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kBarrier:
      switch (way) {
        case Way::kHd:
          return {2 * (powers + fold), kHalving * 2 * n * others / p + 2 * fold * n,
                  n * others / p + fold * n};
        case Way::kRd:
          return {powers + 2 * fold, (powers + 2 * fold) * n, (powers + fold) * n};
        case Way::kTree:
          return {4 * log, 3 * n + 2 * log * step, n};
        case Way::kOneshot:
          return {at_once, others * n, others * n};
        case Way::kTwoshot:
          return {2 * at_once, 2 * n * others / p, n * others / p};
        case Way::kStar:
          return {2 * at_once, 2 * others * n, others * n};
        default:
          return {2 * others, 2 * n * others / p, n * others / p};
      }
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
      if (way == Way::kHd)
        return {powers + 2 * fold, kHalving * others * n + 2 * fold * p * n,
                others * n + fold * p * n};
      if (way == Way::kOneshot) return {at_once, others * n, others * n};
      return {others, others * n, others * n};
    case Collective::kAllGather:
    case Collective::kAllGatherV:
      if (way == Way::kHd) return {powers + 2 * fold, kHalving * others * n + 2 * fold * p * n, 0};
      if (way == Way::kBruck) return {log, (others + p / 4) * n, 0};
      if (way == Way::kOneshot) return {at_once, others * n, 0};
      return {others, others * n, 0};
    case Collective::kBroadcast:
    case Collective::kReduce: {
      const double combines = collective == Collective::kReduce ? 1 : 0;
      if (way == Way::kBinomial) return {log, log * n / 2, combines * log * n};
      if (way == Way::kTree) return {2 * log, n + log * step, combines * n};
      if (way == Way::kStar) return {at_once, others * n / 2, combines * others * n};
      if (nranks == 2) return {1, n / 2, combines * n};
      return {others, n + (others - 2) * step, combines * n};
    }
    case Collective::kAllToAll:
    case Collective::kAllToAllV:
      if (way == Way::kBruck) return {log, 0.75 * log * p * n, 0};
      if (way == Way::kOneshot) return {at_once, others * n, 0};
      return {others, others * n, 0};
    case Collective::kGather:
    case Collective::kScatter:
      if (way == Way::kBinomial) return {log, (others + p / 2) * n / 2, 0};
      return {at_once, others * n / 2, 0};
    case Collective::kSendRecv:
      break;
  }
  return {1, n / 2, 0};
}

double price_of(const Work& work, const ChannelPrices& prices, double load) {
  return load * (work.messages * prices.message + work.moved * prices.byte +
                 work.combined * prices.combined);
}

// Broadcasts and reductions: a tree of one leader per host, and one inside each. All else: inside a
// host each rank gets a share, and goes around a ring with those that have it on the other hosts.
double hierarchical_us(const PricedGroup& group, Collective collective, double n,
                       const MachineClass& machine) {
  const double local = group.most_per_host;
  const double piece = static_cast<double>(group.segment_bytes);
  const ChannelPrices& far = machine.channels[static_cast<size_t>(group.medium)];
  const ChannelPrices& near = machine.channels[static_cast<size_t>(Medium::kMemory)];
  Work within, between;
  if (collective == Collective::kBroadcast || collective == Collective::kReduce) {
    within = work_of(collective, Way::kBinomial, group.most_per_host, n, piece);
    between = work_of(collective, Way::kBinomial, group.hosts, n, piece);
  } else if (collective == Collective::kAllReduce || collective == Collective::kBarrier) {
    within = work_of(collective, Way::kRing, group.most_per_host, n, piece);
    between = work_of(collective, Way::kRing, group.hosts, n / local, piece);
    between.moved *= local;  // the ranks of a host share its network
  } else {
    // The blocks of the other hosts pass through each host whole.
    within = work_of(collective, Way::kRing, group.most_per_host, n * group.hosts, piece);
    between = work_of(collective, Way::kRing, group.hosts, n, piece);
    between.moved *= local;
  }
  const double load = group.ranks_per_core;
  return price_of(within, near, load) + price_of(between, far, load);
}

double channels_us(const PricedGroup& group, Collective collective, double n, Way way,
                   const MachineClass& machine) {
  if (way == Way::kHierarchical) return hierarchical_us(group, collective, n, machine);
  Work work = work_of(collective, way, group.nranks, n, static_cast<double>(group.segment_bytes));
  // A ring leaves each host once; other ways send from all of its ranks at the same time.
  if (group.medium == Medium::kNetwork && way != Way::kRing) work.moved *= group.most_per_host;
  return price_of(work, machine.channels[static_cast<size_t>(group.medium)], group.ranks_per_core);
}

// Blocks that a rank of a fused exchange puts up, and takes.
struct Blocks {
  double put, taken;
};

// Of the rank that has most to do, and of all ranks on average, which counts where they take turns.
struct Shares {
  Blocks most, average;
};

Shares shares_of(Collective collective, Route route, double p) {
  const bool reduction = route == Route::kReduction;
  const auto all = [](double put, double taken) { return Shares{{put, taken}, {put, taken}}; };
  switch (collective) {
    case Collective::kReduceScatter:
      return all(reduction ? p - 1 : p, p - 1);  // by windows without its own
    case Collective::kAllToAll:
      return all(p, p - 1);
    case Collective::kScatter:
      return {{p, 1}, {1, 1}};
    case Collective::kBroadcast:
      return {{1, 1}, {1 / p, 1}};
    case Collective::kReduce:
      // By windows the root puts nothing up, and takes while the others put up the next one.
      if (reduction) return {{0, p - 1}, {(p - 1) / p, (p - 1) / p}};
      return {{1, p - 1}, {1, (p - 1) / p}};
    case Collective::kGather:
      return {{1, p - 1}, {1, (p - 1) / p}};
    case Collective::kBarrier:
      return all(0, 0);
    case Collective::kAllReduce:
      // By windows: its share from all, then the others' shares.
      if (reduction) return all(1, 2 * (p - 1) / p);
      break;
    default:
      break;
  }
  return all(1, p - 1);
}

// In a one-shot with a root, half of the ranks' time goes by without waiting for anybody.
bool awaits_all(Collective collective, Route route) {
  if (route != Route::kOneshot) return true;
  switch (collective) {
    case Collective::kScatter:
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kGather:
      return false;
    default:
      return true;
  }
}

double board_us(const PricedGroup& group, Collective collective, Route route, double n,
                const BoardPrices& prices) {
  const Shares shares = shares_of(collective, route, group.nranks);
  const auto bytes_us = [&](const Blocks& blocks) {
    return n * (blocks.put * prices.put + blocks.taken * prices.taken);
  };
  const double load = group.ranks_per_core;
  const double peers = (awaits_all(collective, route) ? 1.0 : 0.5) * (group.nranks - 1);
  return prices.exchange + load * prices.peer * peers +
         std::max(bytes_us(shares.most), load * bytes_us(shares.average));
}

const MachineClass& class_of(const PricedGroup& group) {
  return group.ranks_per_core > 1 ? kSharedCores : kOwnCores;
}

}  // namespace

double price_us(const PricedGroup& group, Collective collective, size_t bytes, Route route,
                Way way) {
  const MachineClass& machine = class_of(group);
  const double n = static_cast<double>(bytes);
  switch (route) {
    case Route::kLocal:
      return n * machine.copy.put;
    case Route::kOneshot:
      return board_us(group, collective, route, n, machine.oneshot);
    case Route::kReduction:
      return board_us(group, collective, route, n, machine.reduction);
    case Route::kCopy:
      return board_us(group, collective, route, n, machine.copy);
    case Route::kSchedule:
      break;
  }
  return channels_us(group, collective, n, way, machine);
}

double message_us(const PricedGroup& group, size_t bytes) {
  return price_of({1, static_cast<double>(bytes) / 2, 0},
                  class_of(group).channels[static_cast<size_t>(group.medium)],
                  group.ranks_per_core);
}

}  // namespace libcomm
