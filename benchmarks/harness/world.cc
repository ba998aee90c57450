#include "benchmarks/harness/world.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

namespace bench {

void require(commResult_t result, const char* call, int rank, comm_t comm) {
  if (result == commSuccess) return;
  const std::string who = rank < 0 ? "" : "rank " + std::to_string(rank) + ": ";
  std::fprintf(stderr, "%s: %s%s: %s: %s\n", program_invocation_short_name, who.c_str(), call,
               commGetErrorString(result), commGetLastError(comm));
  std::fflush(nullptr);
  _exit(1);  // other threads may hold anything: no destructors
}

commUniqueId World::make_id() {
  commUniqueId id{};
  if (proc_ == 0) require(commGetUniqueId(&id), "commGetUniqueId", 0, nullptr);
  if (relay_ != nullptr && !relay_->share(&id, sizeof id)) {
    std::fprintf(stderr, "%s: process %d: no unique id came from process 0\n", program_, proc_);
    _exit(1);
  }
  if (launcher_comm_ != nullptr && nprocs_ > 1) {
    require(commBroadcast(&id, &id, sizeof id, commInt8, 0, launcher_comm_, nullptr),
            "commBroadcast of the unique id", proc_, launcher_comm_);
  }
  return id;
}

comm_t World::take_launcher_comm() { return std::exchange(launcher_comm_, nullptr); }

void World::close() {
  if (launcher_comm_ == nullptr) return;
  require(commDestroy(launcher_comm_), "commDestroy", proc_, nullptr);
  launcher_comm_ = nullptr;
}

int run_world(const char* program, std::optional<int> procs, int default_procs,
              const std::function<int(World& world)>& body) {
  if (!procs && launched()) {
    comm_t comm = nullptr;
    require(commInitFromLauncher(&comm), "commInitFromLauncher", kRankUnknown, nullptr);
    int rank = 0;
    int nranks = 0;
    require(commUserRank(comm, &rank), "commUserRank", kRankUnknown, comm);
    require(commCount(comm, &nranks), "commCount", rank, comm);
    World world(program, rank, nranks, nullptr, comm);
    const int status = body(world);
    world.close();
    return status;
  }
  const int count = procs.value_or(default_procs);
  if (count == 1) {
    World world(program, 0, 1, nullptr, nullptr);
    return body(world);
  }
  return run_local_processes(program, count, [&](int index, Relay& relay) {
    World world(program, index, count, &relay, nullptr);
    return body(world);
  });
}

void init_ranks(std::vector<comm_t>& comms, int first, int nranks, const commUniqueId& id) {
  const bool group = comms.size() > 1;
  if (group) require(commGroupStart(), "commGroupStart", first, nullptr);
  for (size_t i = 0; i < comms.size(); ++i) {
    const int rank = first + static_cast<int>(i);
    require(commInitRank(&comms[i], nranks, id, rank), "commInitRank", rank, nullptr);
  }
  if (group) require(commGroupEnd(), "commGroupEnd after commInitRank", first, nullptr);
}

}  // namespace bench
