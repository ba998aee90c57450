#include "src/execute/peer_kernels.h"

#include <algorithm>

namespace libcomm {
namespace {

constexpr size_t kLeastShare = 64 << 10;  // bytes: below, launching costs more than it spares
constexpr size_t kShareAlignment = 256;   // bytes

// The elements [begin, end) of a combination that a rank's kernel does.
struct Share {
  size_t begin, end;
};
Share share_of(const Operation& operation, int rank, int nranks) {
  const size_t element = size_of(operation.type);
  const size_t unit = kShareAlignment / element;
  const size_t parts =
      std::clamp<size_t>(operation.count * element / kLeastShare, 1, static_cast<size_t>(nranks));
  const size_t each = (operation.count + parts * unit - 1) / (parts * unit) * unit;
  const size_t begin = std::min(operation.count, static_cast<size_t>(rank) * each);
  return {begin, std::min(operation.count, begin + each)};
}

class Kernel {
 public:
  Kernel(const Operation& operation, int rank, std::span<const PeerBuffers> buffers)
      : operation_(operation),
        rank_(rank),
        nranks_(static_cast<int>(buffers.size())),
        block_(operation.count * size_of(operation.type)),
        buffers_(buffers) {}

  PeerKernel make() {
    const bool at_root = rank_ == operation_.root;
    switch (operation_.collective) {
      case Collective::kAllReduce:
      case Collective::kReduce:
        combine_share();
        break;
      case Collective::kReduceScatter:
        combine_block(operation_.count, at(rank_));
        break;
      case Collective::kReduceScatterV:
        combine_block(my_block(operation_.in_table()), my_place(operation_.in_table()));
        break;
      case Collective::kAllGather:
        gather();
        break;
      case Collective::kAllGatherV:
        gather_table();
        break;
      case Collective::kGather:
        if (at_root) gather();
        break;
      case Collective::kBroadcast:
        fetch(mine().out, of(operation_.root).in);
        break;
      case Collective::kScatter:
        fetch(mine().out, of(operation_.root).in + at(rank_));
        break;
      case Collective::kAllToAll:
        for (int peer = 0; peer < nranks_; ++peer)
          fetch(mine().out + at(peer), of(peer).in + at(rank_));
        break;
      default:
        break;
    }
    return std::move(kernel_);
  }

 private:
  const PeerBuffers& of(int rank) const { return buffers_[static_cast<size_t>(rank)]; }
  const PeerBuffers& mine() const { return of(rank_); }
  size_t at(int block) const { return static_cast<size_t>(block) * block_; }

  cuda::ReduceArguments& combination(size_t count, size_t offset) {
    cuda::ReduceArguments& reduction = kernel_.reduction.emplace();
    reduction.type = operation_.type;
    reduction.op = operation_.op;
    reduction.divisor = operation_.average ? nranks_ : 1;
    reduction.count = count;
    reduction.source_count = nranks_;
    if (operation_.premultiply) reduction.scaled_source = cuda::kEverySource;
    for (int peer = 0; peer < nranks_; ++peer) {
      reduction.sources[peer] = of(peer).in + offset;
      reduction.scalars[peer] = of(peer).scalar;
    }
    return reduction;
  }

  // For all ranks, or for the root.
  void combine_share() {
    const Share share = share_of(operation_, rank_, nranks_);
    if (share.begin == share.end) return;
    const size_t offset = share.begin * size_of(operation_.type);
    cuda::ReduceArguments& reduction = combination(share.end - share.begin, offset);
    for (int peer = 0; peer < nranks_; ++peer)
      if (operation_.collective == Collective::kAllReduce || peer == operation_.root)
        reduction.destinations[reduction.destination_count++] = of(peer).out + offset;
  }

  size_t my_block(const BlockTable& table) const {
    return table.counts[static_cast<size_t>(rank_)];
  }
  size_t my_place(const BlockTable& table) const {
    return table.displs[static_cast<size_t>(rank_)] * size_of(operation_.type);
  }

  void combine_block(size_t count, size_t offset) {
    if (count == 0) return;
    cuda::ReduceArguments& reduction = combination(count, offset);
    reduction.destinations[reduction.destination_count++] = mine().out;
  }

  void gather() {
    for (int peer = 0; peer < nranks_; ++peer) fetch(mine().out + at(peer), of(peer).in);
  }

  void gather_table() {
    const BlockTable& table = operation_.out_table();
    const size_t element = size_of(operation_.type);
    for (size_t peer = 0; peer < buffers_.size(); ++peer)
      if (table.counts[peer] > 0)
        fetch(mine().out + table.displs[peer] * element, buffers_[peer].in,
              table.counts[peer] * element);
  }

  void fetch(std::byte* to, const std::byte* from) { fetch(to, from, block_); }
  void fetch(std::byte* to, const std::byte* from, size_t bytes) {
    if (to == from || bytes == 0) return;
    if (!kernel_.copies) kernel_.copies.emplace();
    kernel_.copies->segments[kernel_.copies->segment_count++] = {from, to, bytes};
  }

  const Operation& operation_;
  const int rank_;
  const int nranks_;
  const size_t block_;  // bytes
  const std::span<const PeerBuffers> buffers_;
  PeerKernel kernel_;
};

}  // namespace

bool has_peer_kernels(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduce:
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kGather:
    case Collective::kBroadcast:
    case Collective::kScatter:
    case Collective::kAllToAll:
    case Collective::kAllGatherV:
    case Collective::kReduceScatterV:
      return true;
    default:
      return false;
  }
}

PeerKernelSize peer_kernel_size(const Operation& operation, int rank, int nranks) {
  const size_t element = size_of(operation.type);
  const bool at_root = rank == operation.root;
  switch (operation.collective) {
    case Collective::kAllReduce:
    case Collective::kReduce: {
      const Share share = share_of(operation, rank, nranks);
      return {true, 0, (share.end - share.begin) * element};
    }
    case Collective::kReduceScatter:
      return {true, 0, operation.count * element};
    case Collective::kReduceScatterV:
      return {true, 0, operation.in_table().counts[static_cast<size_t>(rank)] * element};
    case Collective::kAllGatherV: {
      const std::vector<size_t>& counts = operation.out_table().counts;
      return {false, nranks, *std::max_element(counts.begin(), counts.end()) * element};
    }
    case Collective::kAllGather:
    case Collective::kAllToAll:
      return {false, nranks, operation.count * element};
    case Collective::kGather:
      return {false, at_root ? nranks : 0, operation.count * element};
    default:
      return {false, 1, operation.count * element};
  }
}

PeerKernel peer_kernel(const Operation& operation, int rank, std::span<const PeerBuffers> buffers) {
  return Kernel(operation, rank, buffers).make();
}

}  // namespace libcomm
