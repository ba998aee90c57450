// One rank of a group that a launcher's variables describe, on whatever machine: makes a part of
// the calls of the matrix (tests/collectives/sweep.h) and checks their results.
//
//   vm_rank SALT KEEP-ONE-IN
//
// SALT varies the calls, one in KEEP-ONE-IN is made. Says "right: CALLS calls" or what was wrong.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "tests/collectives/sweep.h"

namespace {

int run(uint64_t salt, size_t keep_one_in) {
  world::Rank rank;
  COMM_OK(rank, commInitFromLauncher(&rank.comm));
  COMM_OK(rank, commUserRank(rank.comm, &rank.rank));
  COMM_OK(rank, commCount(rank.comm, &rank.nranks));
  const auto calls = matrix::thinned(matrix::sweep(rank.nranks, salt, false), keep_one_in);
  {
    matrix::Arena arena;
    for (const matrix::Call& call : calls) matrix::perform(rank, arena, call);
  }
  COMM_OK(rank, commDestroy(rank.comm));
  for (const std::string& text : rank.failures) std::printf("wrong: %s\n", text.c_str());
  if (!rank.failures.empty()) return 1;
  std::printf("right: %zu calls\n", calls.size());
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: vm_rank SALT KEEP-ONE-IN\n");
    return 64;
  }
  return run(std::strtoull(argv[1], nullptr, 10), std::strtoull(argv[2], nullptr, 10));
} catch (const std::exception& error) {
  std::printf("error: %s\n", error.what());
  return 2;
}
