// The host side of NCCL's device communicators: kernels of the caller that communicate themselves,
// over memory that GPUs map of each other or over GPU-initiated networking (GIN). libcomm has
// neither, so what would make one is refused with a text; the questions about teams have true
// answers, with a load/store-accessible (LSA) team of this rank alone.
#include "bindings/nccl/call.h"

using namespace nccl_binding;  // NOLINT: the definitions live in the global namespace

// As in NVIDIA's nccl_device.h: some ranks of a communicator, `stride` apart, of which this rank is
// number `rank`. The other types are only pointed to.
struct ncclTeam {
  int nRanks, rank, stride;
};
struct ncclDevComm;
struct ncclDevCommRequirements;
struct ncclDevResourceRequirements;
struct ncclGinBarrierHandle;
struct ncclLsaBarrierHandle;
struct ncclLLA2AHandle;

namespace {

#define NO_DEVICE_API                                                                          \
  ": libcomm has no device communicators (kernels that communicate by themselves over LSA, "   \
  "multimem or GIN); use the host calls, such as ncclAllReduce, or NVIDIA's library for this " \
  "program"

constexpr ncclTeam kNone = {0, 0, 0};

ncclTeam world_of(ncclComm_t comm) {
  ncclTeam team = {0, 0, 1};
  if (pncclCommCount(comm, &team.nRanks) != ncclSuccess ||
      pncclCommUserRank(comm, &team.rank) != ncclSuccess)
    return kNone;
  return team;
}

// How far the team's member `rank` is from this rank.
int distance(const ncclTeam& team, int rank) { return (rank - team.rank) * team.stride; }

}  // namespace

NCCL_EXPORT ncclResult_t pncclDevCommCreate(ncclComm_t comm, const ncclDevCommRequirements*,
                                            ncclDevComm*) {
  return refuse(ncclInvalidUsage, "ncclDevCommCreate" NO_DEVICE_API, comm);
}
NCCL_WEAK_TWIN(DevCommCreate)

NCCL_EXPORT ncclResult_t pncclDevCommDestroy(ncclComm_t comm, const ncclDevComm*) {
  return refuse(ncclInvalidUsage, "ncclDevCommDestroy" NO_DEVICE_API, comm);
}
NCCL_WEAK_TWIN(DevCommDestroy)

NCCL_EXPORT ncclResult_t pncclGinBarrierCreateRequirement(ncclComm_t comm, ncclTeam, int,
                                                          ncclGinBarrierHandle*,
                                                          ncclDevResourceRequirements*) {
  return refuse(ncclInvalidUsage, "ncclGinBarrierCreateRequirement" NO_DEVICE_API, comm);
}
NCCL_WEAK_TWIN(GinBarrierCreateRequirement)

NCCL_EXPORT ncclResult_t pncclLsaBarrierCreateRequirement(ncclTeam, int, ncclLsaBarrierHandle*,
                                                          ncclDevResourceRequirements*) {
  return refuse(ncclInvalidUsage, "ncclLsaBarrierCreateRequirement" NO_DEVICE_API, nullptr);
}
NCCL_WEAK_TWIN(LsaBarrierCreateRequirement)

NCCL_EXPORT ncclResult_t pncclLLA2ACreateRequirement(int, int, ncclLLA2AHandle*,
                                                     ncclDevResourceRequirements*) {
  return refuse(ncclInvalidUsage, "ncclLLA2ACreateRequirement" NO_DEVICE_API, nullptr);
}
NCCL_WEAK_TWIN(LLA2ACreateRequirement)

// How many slots that requirement would need: none can be had.
NCCL_EXPORT int pncclLLA2ACalcSlots(int, int) {
  (void)refuse(ncclInvalidUsage, "ncclLLA2ACalcSlots" NO_DEVICE_API, nullptr);
  return 0;
}
NCCL_WEAK_TWIN(LLA2ACalcSlots)

NCCL_EXPORT ncclTeam pncclTeamWorld(ncclComm_t comm) { return world_of(comm); }
NCCL_WEAK_TWIN(TeamWorld)

NCCL_EXPORT ncclTeam pncclTeamLsa(ncclComm_t comm) {
  return world_of(comm).nRanks == 0 ? kNone : ncclTeam{1, 0, 1};
}
NCCL_WEAK_TWIN(TeamLsa)

// The ranks that have this rank's place in their LSA team: all, as these have one place.
NCCL_EXPORT ncclTeam pncclTeamRail(ncclComm_t comm) { return world_of(comm); }
NCCL_WEAK_TWIN(TeamRail)

NCCL_EXPORT int pncclTeamRankToWorld(ncclComm_t comm, ncclTeam team, int rank) {
  return world_of(comm).rank + distance(team, rank);
}
NCCL_WEAK_TWIN(TeamRankToWorld)

NCCL_EXPORT int pncclTeamRankToLsa(ncclComm_t, ncclTeam team, int rank) {
  return distance(team, rank);
}
NCCL_WEAK_TWIN(TeamRankToLsa)
