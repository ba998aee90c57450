// Rendezvous: where the ranks of a group meet before they know each other.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"

namespace libcomm {

// commUniqueId's 128 bytes.
using UniqueIdBytes = std::array<char, 128>;

// Makes an id and serves it from this process: a listener and a thread that end when all ranks have
// joined, when nobody has come for BOOTSTRAP_TIMEOUT, or at process exit. With COMM_ID set, the id
// is derived from it instead, and rank 0 serves.
Result<UniqueIdBytes> make_unique_id(const Knobs& knobs);

struct Rendezvous {
  // One or more ids (commInitRankScalable: the same on all ranks, in the same order).
  std::vector<UniqueIdBytes> ids;
};

// What a launcher told this process.
struct LauncherInfo {
  std::string launcher;  // "comm", "torchrun", "pmix", "pmi1", "slurm"; "none": a group of one
  int rank = 0;
  int nranks = 1;
  int local_rank = 0;    // -1: unknown
  int local_nranks = 1;  // -1: unknown
  Rendezvous rendezvous;
};

// Recognises, in this order: COMM_RANK/COMM_NRANKS/COMM_ID, PMIx (libpmix.so.2 opened at run time),
// MPICH's PMI-1 (PMI_RANK, PMI_SIZE, PMI_FD), torchrun (RANK, WORLD_SIZE, MASTER_ADDR,
// MASTER_PORT), Slurm (SLURM_PROCID, SLURM_NTASKS, ...). Exchanges the unique id through the
// launcher where it can. kInvalidArgument: variables that contradict each other, by name and value.
Result<LauncherInfo> join_launcher(const Knobs& knobs);

}  // namespace libcomm
