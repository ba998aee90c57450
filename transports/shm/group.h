// ShmGroup: the ranks of one communicator that really share memory, proved by mapping it.
//
// One memfd per group and communicator, made by the group's lowest rank, holds everything: the
// board's parts, the channels' slots and the doorbells. It is sparse: what is not used costs no
// memory, and it is gone with the last process, SIGKILL included. Ranks in one process share one
// mapping.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "src/base/knobs.h"
#include "src/bootstrap/bootstrap.h"
#include "transports/transport.h"

namespace libcomm {

struct ShmGroup {
  // Reaches exactly the group's members. Null when this rank is alone on its host.
  std::unique_ptr<Transport> transport;
  // Of the same ranks; null when alone. Lives as long as the transport.
  Board* board = nullptr;
  // For every rank of the communicator: the lowest rank of the shared-memory group it belongs to
  // (its own rank when alone). The same on all ranks.
  std::vector<int> group_of;
};

// Collective over the bootstrap. facts[r] are rank r's. A group in which one member could not map
// the segment is split so that everyone agrees; why is logged once (INFO). COMM_SHM_DISABLE=1 gives
// groups of one. kSystem only when memory for this very rank cannot be had; the text names the
// remedy.
Result<ShmGroup> make_shm_group(Bootstrap& bootstrap, std::span<const PeerFacts> facts,
                                std::shared_ptr<const Knobs> knobs);

}  // namespace libcomm
