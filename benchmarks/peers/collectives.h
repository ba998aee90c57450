// The collectives that the drivers time, with the shapes of nccl-tests: a row's size is the larger
// buffer of a rank. Root is always rank 0.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace peers {

enum class Collective {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kReduce,
  kAllToAll,
  kGather,
  kScatter,
  kSendRecv,  // to the next rank, from the previous one
};
inline constexpr int kRoot = 0;

// The name on the command line and in the output.
const char* name_of(Collective collective);
std::optional<Collective> find_collective(const std::string& name);

// Elements of one call on one rank.
struct Shape {
  size_t count = 0;      // what the call is told: a whole buffer, or a rank's block
  size_t send = 0;       // in the send buffer
  size_t recv = 0;       // in the receive buffer; a broadcast works in it alone
  size_t row = 0;        // in the larger buffer of any rank
  bool receives = true;  // this rank has a result
};
// At least one element per block, so the row may be a little larger than asked for.
Shape shape_of(Collective collective, size_t elements, int rank, int nranks);

// A piece of a result: `count` elements at `offset`, equal to elements `first`.. of rank `source`'s
// send buffer, or of the sum over ranks.
inline constexpr int kSum = -1;
struct Piece {
  size_t offset;
  size_t count;
  int source;
  size_t first;
};
std::vector<Piece> result_of(Collective collective, const Shape& shape, int rank, int nranks);

}  // namespace peers
