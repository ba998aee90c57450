/* A host program as written for NCCL 2.28, on host memory. The install test ports it with the sed
 * rule of comm.h's first lines, builds it as C and as C++, and runs it; tests/nccl/library_test.sh
 * runs it as it is on libcomm's libnccl.so.2.
 */
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if NCCL_VERSION_CODE < NCCL_VERSION(2, 28, 0)
#error "this program was written for NCCL 2.28"
#endif

#define RANKS 4
#define COUNT 257

#define CHECK(call)                                                     \
  do {                                                                  \
    ncclResult_t result_ = (call);                                      \
    if (result_ != ncclSuccess && result_ != ncclInProgress) {          \
      fprintf(stderr, "%s:%d %s: %s (%s)\n", __FILE__, __LINE__, #call, \
              ncclGetErrorString(result_), ncclGetLastError(NULL));     \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d expected %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

/* All ranks driven by this one thread, as single-process multi-GPU programs do. */
static void one_thread_many_ranks(void) {
  ncclComm_t comms[RANKS], halves[RANKS];
  float *send[RANKS], *recv[RANKS];
  CHECK(ncclCommInitAll(comms, RANKS, NULL));
  for (int r = 0; r < RANKS; ++r) {
    int count = 0, rank = -1;
    ncclResult_t state = ncclInternalError;
    CHECK(ncclCommCount(comms[r], &count));
    CHECK(ncclCommUserRank(comms[r], &rank));
    CHECK(ncclCommGetAsyncError(comms[r], &state));
    EXPECT(count == RANKS && rank == r && state == ncclSuccess);
    CHECK(ncclMemAlloc((void**)&send[r], COUNT * RANKS * sizeof(float)));
    CHECK(ncclMemAlloc((void**)&recv[r], COUNT * RANKS * sizeof(float)));
    for (int i = 0; i < COUNT; ++i) send[r][i] = (float)(r + i % 7);
  }

  CHECK(ncclGroupStart());
  for (int r = 0; r < RANKS; ++r)
    CHECK(ncclAllReduce(send[r], recv[r], COUNT, ncclFloat32, ncclSum, comms[r], NULL));
  CHECK(ncclGroupEnd());
  for (int r = 0; r < RANKS; ++r)
    for (int i = 0; i < COUNT; ++i) EXPECT(recv[r][i] == (float)(6 + 4 * (i % 7)));

  /* A ring of point-to-point messages. */
  CHECK(ncclGroupStart());
  for (int r = 0; r < RANKS; ++r) {
    CHECK(ncclSend(send[r], COUNT, ncclFloat, (r + 1) % RANKS, comms[r], NULL));
    CHECK(ncclRecv(recv[r], COUNT, ncclFloat, (r + RANKS - 1) % RANKS, comms[r], NULL));
  }
  CHECK(ncclGroupEnd());
  for (int r = 0; r < RANKS; ++r) EXPECT(recv[r][0] == (float)((r + RANKS - 1) % RANKS));

  /* Halves: even and odd ranks; then the largest value of each half. */
  CHECK(ncclGroupStart());
  for (int r = 0; r < RANKS; ++r) CHECK(ncclCommSplit(comms[r], r % 2, r, &halves[r], NULL));
  CHECK(ncclGroupEnd());
  CHECK(ncclGroupStart());
  for (int r = 0; r < RANKS; ++r)
    CHECK(ncclAllReduce(send[r], recv[r], 1, ncclFloat, ncclMax, halves[r], NULL));
  CHECK(ncclGroupEnd());
  for (int r = 0; r < RANKS; ++r) EXPECT(recv[r][0] == (float)(r % 2 + 2));

  for (int r = 0; r < RANKS; ++r) CHECK(ncclCommDestroy(halves[r]));
  for (int r = 0; r < RANKS; ++r) {
    CHECK(ncclCommDestroy(comms[r]));
    CHECK(ncclMemFree(send[r]));
    CHECK(ncclMemFree(recv[r]));
  }
}

/* One rank per process, the id handed over by inheritance, options in a config. */
static int one_rank(ncclUniqueId id, int rank, int nranks) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t comm = NULL;
  ncclRedOp_t half;
  double factor = 0.5, values[COUNT];
  void* handle = NULL;
  cudaStream_t stream = NULL;
  config.blocking = 1;
  config.commName = "ported";
  CHECK(ncclCommInitRankConfig(&comm, nranks, id, rank, &config));
  CHECK(ncclCommRegister(comm, values, sizeof values, &handle));
  for (int i = 0; i < COUNT; ++i) values[i] = rank == 0 ? i : -1;
  CHECK(ncclBroadcast(values, values, COUNT, ncclDouble, 0, comm, stream));
  for (int i = 0; i < COUNT; ++i) EXPECT(values[i] == i);
  CHECK(ncclRedOpCreatePreMulSum(&half, &factor, ncclFloat64, ncclScalarHostImmediate, comm));
  CHECK(ncclAllReduce(values, values, COUNT, ncclFloat64, half, comm, stream));
  for (int i = 0; i < COUNT; ++i) EXPECT(values[i] == 0.5 * nranks * i);
  CHECK(ncclRedOpDestroy(half, comm));
  CHECK(ncclCommDeregister(comm, handle));
  CHECK(ncclCommFinalize(comm));
  CHECK(ncclCommDestroy(comm));
  return 0;
}

int main(void) {
  int version = 0;
  ncclUniqueId id;
  CHECK(ncclGetVersion(&version));
  EXPECT(version == NCCL_VERSION_CODE);
  one_thread_many_ranks();

  CHECK(ncclGetUniqueId(&id));
  for (int rank = 0; rank < 3; ++rank)
    if (fork() == 0) _exit(one_rank(id, rank, 3));
  for (int rank = 0; rank < 3; ++rank) {
    int status = 0;
    EXPECT(wait(&status) > 0 && status == 0);
  }
  puts("ok");
  return 0;
}
