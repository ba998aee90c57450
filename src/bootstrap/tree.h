// The tree: the bootstrap's own collective, an exchange of one block per rank.
//
// Ranks are joined by connections in a tree. An exchange gathers blocks towards the tree's root,
// each rank sending its whole subtree's blocks in one message, and then sends the complete set
// down: 2 log n messages one after the other, and per rank as many messages as it has neighbours.
// All of it runs on the calling thread.
//
// Who gives an exchange up, because somebody does not come or makes another call, tells its
// neighbours why, and they tell theirs: all ranks name the culprit, not the rank that they happened
// to wait for. Ranks deeper in the tree lose patience with their children a little earlier, so
// that their word is there before those above lose theirs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/fd.h"
#include "src/base/status.h"
#include "src/bootstrap/wait.h"

namespace libcomm {

struct TreeEdge {
  int rank = -1;
  UniqueFd fd;
  bool half_sent = false;  // a message has not gone out whole: none can follow
};

// What kind of call an exchange belongs to; all ranks must agree.
enum class ExchangeKind : uint32_t {
  kTable = 1,
  kGather = 2,
  kText = 3,
  kBarrier = 4,
  kGaveUp = 5,  // in place of any other: what follows is the reason, as news (news.h)
  kSplit = 6,   // as kGather, of one call of the user each
  kWindow = 7,
};

constexpr uint64_t kMaxBlockBytes = 16u << 20;

// In front of every message, both ways.
struct FrameWire {
  uint32_t magic;
  uint32_t kind;
  uint64_t sequence;     // counts this tree's exchanges
  uint64_t block_bytes;  // what every block must have; 0: blocks differ
  uint64_t bytes;        // what follows: blocks, each a BlockWire and its bytes
};
static_assert(sizeof(FrameWire) == 32);

struct BlockWire {
  uint32_t rank;
  uint32_t reserved;
  uint64_t bytes;
};
static_assert(sizeof(BlockWire) == 16);

class Tree {
 public:
  Tree() = default;
  // An invalid parent edge marks the tree's root.
  Tree(int rank, int nranks, TreeEdge parent, std::vector<TreeEdge> children);

  // Every rank's block, by rank. All ranks call it with the same kind and block_bytes.
  // kRemote: a neighbour is gone (the status names it as its peer), or limits.alarm went off;
  // kInvalidUsage: a rank makes another call, or cancelled; kSystem: the deadline passed. In both,
  // the peer is the rank that was found missing or different by whoever gave up first.
  Result<std::vector<std::string>> exchange(ExchangeKind kind, uint64_t block_bytes,
                                            const std::string& mine, const WaitLimits& limits);

  // Tells the neighbours why this rank makes no exchange any more, as far as they can be told.
  void give_up(const Status& reason);

  int sockets() const { return static_cast<int>(children_.size()) + (parent_.fd ? 1 : 0); }
  void close();

 private:
  struct Incoming;
  Result<std::vector<std::string>> try_exchange(FrameWire frame, const std::string& mine,
                                                const WaitLimits& limits);
  Status send(TreeEdge& to, const std::string& message, const WaitLimits& limits);
  // Receives one frame's blocks from each edge, in whatever order they come, at most until `until`.
  Result<std::vector<std::string>> receive(const std::vector<const TreeEdge*>& from,
                                           const FrameWire& expected, const WaitLimits& limits,
                                           const Deadline& until);
  // Takes what has come on an edge; an error ends the exchange.
  Status take(const TreeEdge& edge, const FrameWire& expected, Incoming* in);
  Status check_frame(const TreeEdge& edge, const FrameWire& got, const FrameWire& expected) const;
  Status not_come(const std::vector<int>& ranks) const;
  Deadline patience_with_children(const WaitLimits& limits) const;

  int rank_ = 0;
  int nranks_ = 1;
  uint64_t sequence_ = 0;
  TreeEdge parent_;
  std::vector<TreeEdge> children_;
};

}  // namespace libcomm
