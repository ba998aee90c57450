// A rank on a host: joins its group, runs collectives and checks every element.
//
//   hosts_rank CALL COUNT TIMES [ID-FILE RANK NRANKS]
//
// CALL is allreduce, allgather, broadcast or alltoall, COUNT the integers of one rank's block,
// TIMES how often (0: until it fails). "together" is an endless all-reduce, in one group with
// another of a communicator of ranks 0 and 1, which rank 1 calls once and no more. The group comes
// from the launcher's variables, or from a unique id that rank 0 writes to ID-FILE. Says "joined",
// then "right", or what the library answered; the exit status is 0, 1 for wrong values, 2 for an
// error.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "comm.h"

namespace {

int complain(comm_t comm) {
  std::printf("error: %s\n", commGetLastError(comm));
  return 2;
}

commUniqueId read_id(const char* path) {
  commUniqueId id;
  for (;; ::usleep(1000)) {
    std::FILE* file = std::fopen(path, "r");
    if (file == nullptr) continue;
    const size_t got = std::fread(&id, sizeof id, 1, file);
    std::fclose(file);
    if (got == 1) return id;
  }
}

commResult_t join(int argc, char** argv, comm_t* comm) {
  if (argc < 7) return commInitFromLauncher(comm);
  const int rank = std::atoi(argv[5]), nranks = std::atoi(argv[6]);
  if (rank != 0) return commInitRank(comm, nranks, read_id(argv[4]), rank);
  commUniqueId id;
  if (const commResult_t result = commGetUniqueId(&id); result != commSuccess) return result;
  const std::string path = argv[4], hidden = path + ".new";
  std::FILE* file = std::fopen(hidden.c_str(), "w");
  if (file == nullptr || std::fwrite(&id, sizeof id, 1, file) != 1 || std::fclose(file) != 0 ||
      std::rename(hidden.c_str(), path.c_str()) != 0)
    return commSystemError;
  return commInitRank(comm, nranks, id, rank);
}

int32_t value(size_t rank, size_t at) { return static_cast<int32_t>(rank * 1000003 + at % 8191); }

struct Job {
  std::string call;
  size_t count, rank, nranks;
  std::vector<int32_t> in, out;

  void fill() {
    in.resize(call == "alltoall" ? count * nranks : count);
    out.assign(call == "alltoall" || call == "allgather" ? count * nranks : count, -1);
    for (size_t i = 0; i < in.size(); ++i) in[i] = value(rank, i);
  }

  commResult_t run(comm_t comm) {
    const void* from = in.data();
    void* to = out.data();
    if (call == "allgather") return commAllGather(from, to, count, commInt32, comm, nullptr);
    if (call == "alltoall") return commAlltoAll(from, to, count, commInt32, comm, nullptr);
    if (call == "broadcast")
      return commBroadcast(from, to, count, commInt32, static_cast<int>(nranks) - 1, comm, nullptr);
    return commAllReduce(from, to, count, commInt32, commSum, comm, nullptr);
  }

  int32_t expected(size_t at) const {
    if (call == "allgather") return value(at / count, at % count);
    if (call == "alltoall") return value(at / count, rank * count + at % count);
    if (call == "broadcast") return value(nranks - 1, at);
    int32_t sum = 0;
    for (size_t r = 0; r < nranks; ++r) sum += value(r, at);
    return sum;
  }
};

// Calls of two communicators in one group.
class Together {
 public:
  commResult_t begin(comm_t comm, Job* job) {
    comm_ = comm;
    job_ = job;
    const int color = job->rank < 2 ? 0 : COMM_SPLIT_NOCOLOR;
    return commSplit(comm, color, 0, &pair_, nullptr);
  }
  commResult_t run() {
    if (job_->rank == 1 && called_) {
      commResult_t failure = commSuccess;
      while (commGetAsyncError(comm_, &failure) == commSuccess && failure == commSuccess)
        ::usleep(10000);
      return failure;
    }
    called_ = true;
    if (const commResult_t result = commGroupStart(); result != commSuccess) return result;
    if (pair_ != nullptr) (void)commAllReduce(&one_, &two_, 1, commInt32, commSum, pair_, nullptr);
    (void)job_->run(comm_);
    return commGroupEnd();
  }
  void end() {
    if (pair_ != nullptr) commAbort(pair_);
  }

 private:
  comm_t comm_ = nullptr;
  comm_t pair_ = nullptr;
  Job* job_ = nullptr;
  bool called_ = false;
  int32_t one_ = 1, two_ = 0;
};

int run(int argc, char** argv) {
  comm_t comm = nullptr;
  if (join(argc, argv, &comm) != commSuccess) return complain(nullptr);
  std::printf("joined\n");
  int rank = 0, nranks = 0;
  commUserRank(comm, &rank);
  commCount(comm, &nranks);
  Job job{argv[1],
          std::strtoull(argv[2], nullptr, 10),
          static_cast<size_t>(rank),
          static_cast<size_t>(nranks),
          {},
          {}};
  job.fill();
  const long times = std::atol(argv[3]);
  const bool together = job.call == "together";
  Together calls;
  if (together && calls.begin(comm, &job) != commSuccess) return complain(comm);
  for (long i = 0; times == 0 || i < times; ++i) {
    if ((together ? calls.run() : job.run(comm)) != commSuccess) {
      const int status = complain(comm);
      calls.end();
      commAbort(comm);
      return status;
    }
    if (i == 0) std::printf("first\n");
    for (size_t at = 0; times != 0 && at < job.out.size(); ++at)
      if (job.out[at] != job.expected(at)) {
        std::printf("wrong: element %zu is %d, not %d\n", at, job.out[at], job.expected(at));
        return 1;
      }
  }
  if (commDestroy(comm) != commSuccess) return complain(nullptr);
  std::printf("right\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc != 4 && argc != 7) {
    std::fprintf(stderr, "usage: hosts_rank CALL COUNT TIMES [ID-FILE RANK NRANKS]\n");
    return 64;
  }
  return run(argc, argv);
}
