// Eight bytes to and fro between two ranks that a launcher's variables describe, as ibv_rc_pingpong
// does: one message at a time. sendrecv_perf has two under way, one in each direction.
//
//   vm_ping_pong ROUNDS
//
// Rank 0 says "ping_pong bytes 8 count ROUNDS usec_one_way MICROSECONDS".
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "comm.h"

namespace {

commResult_t rounds(comm_t comm, int rank, long count) {
  int64_t value = 0;
  for (long i = 0; i < 2 * count; ++i) {
    const commResult_t result = (i + rank) % 2 == 0
                                    ? commSend(&value, 1, commInt64, 1 - rank, comm, nullptr)
                                    : commRecv(&value, 1, commInt64, 1 - rank, comm, nullptr);
    if (result != commSuccess) return result;
  }
  return commSuccess;
}

commResult_t run(long count) {
  comm_t comm = nullptr;
  if (const commResult_t result = commInitFromLauncher(&comm); result != commSuccess) return result;
  int rank = 0;
  commUserRank(comm, &rank);
  if (const commResult_t result = rounds(comm, rank, 1 + count / 10); result != commSuccess)
    return result;
  const auto start = std::chrono::steady_clock::now();
  if (const commResult_t result = rounds(comm, rank, count); result != commSuccess) return result;
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
  if (rank == 0)
    std::printf("ping_pong bytes 8 count %ld usec_one_way %.2f\n", count,
                time.count() / (2.0 * static_cast<double>(count)));
  return commDestroy(comm);
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc == 2 ? std::atol(argv[1]) : 0;
  if (count <= 0) {
    std::fprintf(stderr, "usage: vm_ping_pong ROUNDS\n");
    return 64;
  }
  if (run(count) == commSuccess) return 0;
  std::printf("error: %s\n", commGetLastError(nullptr));
  return 2;
}
