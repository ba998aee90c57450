// How a benchmark's processes come to life and how its ranks find each other: under a launcher
// through commInitFromLauncher, otherwise as local processes.
#pragma once

#include <comm.h>

#include <functional>
#include <optional>
#include <vector>

#include "benchmarks/harness/launch.h"

namespace bench {

// Before a launcher has told the process its rank.
inline constexpr int kRankUnknown = -1;

// Ends this process with a line that names the rank, the call and the library's reason. With local
// processes the parent then ends the others. Any thread.
void require(commResult_t result, const char* call, int rank, comm_t comm);

class World {
 public:
  World(const char* program, int proc, int nprocs, Relay* relay, comm_t launcher_comm)
      : program_(program),
        proc_(proc),
        nprocs_(nprocs),
        relay_(relay),
        launched_(launcher_comm != nullptr),
        launcher_comm_(launcher_comm) {}

  const char* program() const { return program_; }
  int proc() const { return proc_; }
  int nprocs() const { return nprocs_; }
  // Whether a launcher started the processes.
  bool launched() const { return launched_; }

  // A fresh id, the same in all processes. Every process calls it, equally often.
  commUniqueId make_id();
  // The launcher's own communicator, for a run with one rank per process; the caller owns it then.
  // Null without a launcher, or when it has been taken.
  comm_t take_launcher_comm();
  // Ends what is left of it.
  void close();

 private:
  const char* program_;
  int proc_;
  int nprocs_;
  Relay* relay_;  // null: one process, or a launcher
  bool launched_;
  comm_t launcher_comm_;
};

// Runs `body` in every process and returns this process's exit status. procs unset: the launcher's
// processes if there is one, else `default_procs` local ones.
int run_world(const char* program, std::optional<int> procs, int default_procs,
              const std::function<int(World& world)>& body);

// Makes ranks first .. first + comms.size() of `nranks`; several in one group.
void init_ranks(std::vector<comm_t>& comms, int first, int nranks, const commUniqueId& id);

}  // namespace bench
