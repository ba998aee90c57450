/* A user's C11 program, built against an installed libcomm: an all-reduce of one rank in this
 * process, then one of two ranks in forked processes. Prints "ok" when every element is right. */
#include <comm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 1003

static int check(commResult_t result, const char* call, comm_t comm) {
  if (result == commSuccess) return 1;
  fprintf(stderr, "%s: %s: %s\n", call, commGetErrorString(result), commGetLastError(comm));
  return 0;
}

/* Joins as `rank` of `nranks`, sums, and checks: 0 when all is well. */
static int run_rank(commUniqueId id, int rank, int nranks) {
  comm_t comm = NULL;
  if (!check(commInitRank(&comm, nranks, id, rank), "commInitRank", NULL)) return 1;
  static float send[COUNT], recv[COUNT];
  for (int i = 0; i < COUNT; ++i) send[i] = (float)(rank + 1) * (float)(i % 17);
  if (!check(commAllReduce(send, recv, COUNT, commFloat, commSum, comm, NULL), "commAllReduce",
             comm))
    return 1;
  const float ranks_sum = (float)(nranks * (nranks + 1) / 2);
  for (int i = 0; i < COUNT; ++i) {
    if (recv[i] != ranks_sum * (float)(i % 17)) {
      fprintf(stderr, "rank %d of %d: element %d is %g\n", rank, nranks, i, (double)recv[i]);
      return 1;
    }
  }
  return check(commDestroy(comm), "commDestroy", NULL) ? 0 : 1;
}

int main(void) {
  int version = 0;
  if (!check(commGetVersion(&version), "commGetVersion", NULL)) return 1;
  if (version != COMM_VERSION_CODE) {
    fprintf(stderr, "the header says %d, the library %d\n", COMM_VERSION_CODE, version);
    return 1;
  }
  commUniqueId alone, both;
  if (!check(commGetUniqueId(&alone), "commGetUniqueId", NULL)) return 1;
  if (run_rank(alone, 0, 1) != 0) return 1;

  if (!check(commGetUniqueId(&both), "commGetUniqueId", NULL)) return 1;
  for (int rank = 0; rank < 2; ++rank) {
    const pid_t child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) _exit(run_rank(both, rank, 2));
  }
  int failed = 0;
  for (int rank = 0; rank < 2; ++rank) {
    int status = 0;
    if (wait(&status) < 0 || status != 0) failed = 1;
  }
  if (!failed) puts("ok");
  return failed;
}
