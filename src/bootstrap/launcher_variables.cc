// Launchers that only set variables: torchrun and Slurm without a PMI plug-in. Rank 0's host is
// known; the port and, without COMM_SECRET, the key are derived from what all ranks were told.
#include "src/bootstrap/launcher.h"

namespace libcomm {

LauncherAnswer ask_torchrun(const Knobs& knobs) {
  const auto rank = environment("RANK"), size = environment("WORLD_SIZE");
  if (!rank.has_value() || !size.has_value()) return std::optional<LauncherInfo>();
  LauncherInfo info;
  info.launcher = "torchrun";
  COMM_ASSIGN(info.rank, number_from("RANK", *rank, 0));
  COMM_ASSIGN(info.nranks, number_from("WORLD_SIZE", *size, 1));
  COMM_TRY(check_rank("RANK", info.rank, "WORLD_SIZE", info.nranks));
  COMM_ASSIGN(info.local_rank, environment_number("LOCAL_RANK", 0, -1));
  COMM_ASSIGN(info.local_nranks, environment_number("LOCAL_WORLD_SIZE", 1, -1));
  if (info.local_nranks > 0)
    COMM_TRY(check_rank("LOCAL_RANK", info.local_rank, "LOCAL_WORLD_SIZE", info.local_nranks));
  if (info.nranks == 1) {
    COMM_ASSIGN(info.rendezvous, solo_rendezvous());
    return std::optional<LauncherInfo>(std::move(info));
  }
  const auto host = environment("MASTER_ADDR"), port_text = environment("MASTER_PORT");
  if (!host.has_value() || !port_text.has_value())
    return error(Code::kInvalidArgument,
                 "RANK={} and WORLD_SIZE={} are set without {}: torchrun sets it", info.rank,
                 info.nranks, host.has_value() ? "MASTER_PORT" : "MASTER_ADDR");
  COMM_ASSIGN(const int port, number_from("MASTER_PORT", *port_text, 1));
  if (port > 65535) return error(Code::kInvalidArgument, "MASTER_PORT={} is not a port", port);
  // The agent owns MASTER_PORT. A restart is a new group.
  const std::string name = fmt::format("torchrun {}:{} run {} restart {}", *host, port,
                                       environment("TORCHELASTIC_RUN_ID").value_or("none"),
                                       environment("TORCHELASTIC_RESTART_COUNT").value_or("0"));
  COMM_ASSIGN(info.rendezvous,
              derived_rendezvous(knobs, *host, name, port, fmt::format("MASTER_ADDR={}", *host)));
  return std::optional<LauncherInfo>(std::move(info));
}

namespace {

// The first host of Slurm's compressed list: "node[07-09,12],login" gives "node07".
std::string first_host(const std::string& list) {
  std::string host;
  for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      host += list[i];
      continue;
    }
    size_t at = i + 1;
    while (at < list.size() && list[at] >= '0' && list[at] <= '9') host += list[at++];
    i = list.find(']', at);
    if (i == std::string::npos) break;
  }
  return host;
}

}  // namespace

LauncherAnswer ask_slurm(const Knobs& knobs) {
  const auto rank = environment("SLURM_PROCID"), size = environment("SLURM_NTASKS");
  // A batch script itself has the first two, but is no task of a step.
  const auto nodes = environment("SLURM_STEP_NODELIST");
  if (!rank.has_value() || !size.has_value() || !nodes.has_value())
    return std::optional<LauncherInfo>();
  LauncherInfo info;
  info.launcher = "slurm";
  COMM_ASSIGN(info.rank, number_from("SLURM_PROCID", *rank, 0));
  COMM_ASSIGN(info.nranks, number_from("SLURM_NTASKS", *size, 1));
  COMM_TRY(check_rank("SLURM_PROCID", info.rank, "SLURM_NTASKS", info.nranks));
  COMM_ASSIGN(info.local_rank, environment_number("SLURM_LOCALID", 0, -1));
  info.local_nranks = -1;
  if (info.nranks == 1) {
    COMM_ASSIGN(info.rendezvous, solo_rendezvous());
    return std::optional<LauncherInfo>(std::move(info));
  }
  const std::string host = first_host(*nodes);
  const auto job = environment("SLURM_JOB_ID");
  if (host.empty() || !job.has_value())
    return error(
        Code::kInvalidArgument,
        "SLURM_PROCID={} of SLURM_NTASKS={}: SLURM_STEP_NODELIST={} and SLURM_JOB_ID={} do not "
        "tell where rank 0 is; start with srun",
        info.rank, info.nranks, *nodes, job.value_or(""));
  const std::string name = fmt::format("slurm {} job {} step {}", host, *job,
                                       environment("SLURM_STEP_ID").value_or("0"));
  COMM_ASSIGN(info.rendezvous, derived_rendezvous(knobs, host, name, 0,
                                                  fmt::format("SLURM_STEP_NODELIST={}", *nodes)));
  return std::optional<LauncherInfo>(std::move(info));
}

}  // namespace libcomm
