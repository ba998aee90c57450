// Ranks on this host, when no launcher has started any: copies of this process, which is rank 0.
#pragma once

#include <sys/types.h>

#include <memory>
#include <vector>

#include "src/bootstrap/rendezvous.h"

namespace libcomm {

class LocalRanks {
 public:
  // Forks; returns in all of the processes. Before anything of the library is in use.
  static Result<std::unique_ptr<LocalRanks>> start(int nranks);
  ~LocalRanks();  // ends those that have not ended
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  int rank() const { return rank_; }
  // Rank 0 makes it, the others wait for it.
  Result<Rendezvous> rendezvous(const Knobs& knobs);
  // Of rank 0: waits for the others; false when one ended badly.
  bool wait();

 private:
  LocalRanks() = default;

  int rank_ = 0;
  std::vector<pid_t> others_;
  std::vector<int> pipes_;  // rank 0: to each; others: one, from rank 0
};

}  // namespace libcomm
