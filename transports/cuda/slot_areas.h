// SlotAreas: the areas in GPU memory through which executors of the ranks of one host reach each
// other (src/device/kernels/execute_arguments.h), one for each rank.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "src/base/status.h"
#include "src/bootstrap/bootstrap.h"
#include "src/device/kernels/execute_arguments.h"
#include "src/device/memory.h"
#include "transports/cuda/peer_memory.h"

namespace libcomm::cuda {

class SlotAreas {
 public:
  // Collective: allocates this rank's area, all zero, and maps those of the others. Null at all
  // ranks when one of them cannot, which says why in its log. `memory` is what `ranks` have agreed
  // on. `wanted`: this rank may use them. Errors: those of the bootstrap.
  static Result<std::unique_ptr<SlotAreas>> agree(Bootstrap& bootstrap, const Driver& driver,
                                                  PeerMemory& memory,
                                                  std::span<const GpuRank> ranks,
                                                  const AreaShape& shape, bool wanted);

  const AreaShape& shape() const { return shape_; }
  // By rank, as this process reaches them.
  std::span<std::byte* const> at() const { return at_; }
  size_t bytes() const { return mine_ ? mine_->size() : 0; }

 private:
  explicit SlotAreas(const AreaShape& shape) : shape_(shape) {}
  struct Offer;
  Status prepare(const Driver& driver, PeerMemory& memory, Offer* offer);
  Status reach(const Driver& driver, PeerMemory& memory, std::span<const GpuRank> ranks,
               std::span<const Offer> offers, int rank);

  const AreaShape shape_;
  std::shared_ptr<DeviceBuffer> mine_;
  // Those of the ranks of this process: their kernels may write into it, and this rank's into
  // theirs, a moment after one of them has ended.
  std::vector<std::shared_ptr<DeviceBuffer>> of_threads_;
  std::vector<MappedMemory> of_processes_;
  std::vector<std::byte*> at_;
};

}  // namespace libcomm::cuda
