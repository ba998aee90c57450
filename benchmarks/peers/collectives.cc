#include "benchmarks/peers/collectives.h"

#include <algorithm>
#include <iterator>

namespace peers {
namespace {

constexpr const char* kNames[] = {"allreduce", "allgather", "reducescatter", "broadcast", "reduce",
                                  "alltoall",  "gather",    "scatter",       "sendrecv"};

}  // namespace

const char* name_of(Collective collective) { return kNames[static_cast<size_t>(collective)]; }

std::optional<Collective> find_collective(const std::string& name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<Collective>(i);
  }
  return std::nullopt;
}

Shape shape_of(Collective collective, size_t elements, int rank, int nranks) {
  const bool root = rank == kRoot;
  const size_t whole = std::max<size_t>(elements, 1);
  const size_t block = std::max<size_t>(elements / static_cast<size_t>(nranks), 1);
  const size_t blocks = block * static_cast<size_t>(nranks);
  switch (collective) {
    case Collective::kAllGather:
      return {block, block, blocks, blocks, true};
    case Collective::kReduceScatter:
      return {block, blocks, block, blocks, true};
    case Collective::kBroadcast:
      return {whole, 0, whole, whole, true};
    case Collective::kReduce:
      return {whole, whole, whole, whole, root};
    case Collective::kAllToAll:
      return {block, blocks, blocks, blocks, true};
    case Collective::kGather:
      return {block, block, blocks, blocks, root};
    case Collective::kScatter:
      return {block, blocks, block, blocks, true};
    default:
      return {whole, whole, whole, whole, true};
  }
}

std::vector<Piece> result_of(Collective collective, const Shape& shape, int rank, int nranks) {
  if (!shape.receives) return {};
  const size_t own = static_cast<size_t>(rank) * shape.count;
  std::vector<Piece> blocks;
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduce:
      return {{0, shape.count, kSum, 0}};
    case Collective::kReduceScatter:
      return {{0, shape.count, kSum, own}};
    case Collective::kBroadcast:
      return {{0, shape.count, kRoot, 0}};
    case Collective::kScatter:
      return {{0, shape.count, kRoot, own}};
    case Collective::kSendRecv:
      return {{0, shape.count, (rank + nranks - 1) % nranks, 0}};
    default:
      break;
  }
  const size_t first = collective == Collective::kAllToAll ? own : 0;
  for (int source = 0; source < nranks; ++source) {
    blocks.push_back({static_cast<size_t>(source) * shape.count, shape.count, source, first});
  }
  return blocks;
}

}  // namespace peers
