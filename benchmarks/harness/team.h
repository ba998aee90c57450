// The ranks that one thread drives: usually one, with -g several through groups. Owns their
// communicators, buffers and registrations, and combines small facts over all ranks of the run.
#pragma once

#include <comm.h>

#include <vector>

#include "benchmarks/harness/buffer.h"
#include "benchmarks/harness/options.h"
#include "benchmarks/harness/report.h"
#include "benchmarks/harness/world.h"

namespace bench {

struct Member {
  comm_t comm = nullptr;
  int rank = 0;
  Buffer send;
  Buffer recv;
  std::vector<void*> handles;         // commRegister's
  std::vector<commWindow_t> windows;  // commWindowRegister's
};

class Team {
 public:
  // Takes the communicators over; `bytes` is the most a buffer has to hold.
  Team(const std::vector<comm_t>& comms, int first_rank, int nranks, size_t bytes,
       const Options& options);
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team();

  std::vector<Member>& members() { return members_; }
  int nranks() const { return nranks_; }
  // True in the one thread of the run that prints.
  bool has_rank0() const { return members_.front().rank == 0; }
  cudaStream_t stream() const { return stream_; }

  // Calls fn for every member `times` times, as one group if that makes several calls.
  template <typename Fn>
  void each(const char* call, int times, const Fn& fn);
  // Until what was queued on the stream is done.
  void synchronize();
  void barrier();
  // values[i] is member i's; the result is the same on all ranks.
  double combine(const std::vector<double>& values, commRedOp_t op);
  // Every rank's line, in rank order.
  std::vector<RankInfo> gather_info();

 private:
  void allocate(Member& member, size_t bytes, const Options& options);
  void register_buffers(Registration registration);

  std::vector<Member> members_;
  int nranks_;
  cudaStream_t stream_ = nullptr;
};

template <typename Fn>
void Team::each(const char* call, int times, const Fn& fn) {
  const int first = members_.front().rank;
  const bool group = times > 1 || members_.size() > 1;
  if (group) require(commGroupStart(), "commGroupStart", first, nullptr);
  for (int i = 0; i < times; ++i) {
    for (Member& member : members_) require(fn(member), call, member.rank, member.comm);
  }
  // The reason of a failure inside a group is the thread's.
  if (group) require(commGroupEnd(), call, first, nullptr);
}

}  // namespace bench
