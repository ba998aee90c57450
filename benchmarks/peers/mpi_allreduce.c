/* Times MPI_Allreduce (fp32 sum) the way all_reduce_perf times commAllReduce, for a side-by-side
 * run: per size some warm-ups, a barrier, then `iters` calls; the time of a call is the mean over
 * ranks. Each size is measured in several rounds and the median round is printed. Every element of
 * a result is checked against an exact sum of small integers.
 *
 *   mpirun -np 2 mpi_allreduce [-b BYTES] [-e BYTES] [-n ITERS] [-w WARMUPS] [-r ROUNDS]
 *
 * Prints "bytes microseconds wrong" per power-of-two size. Exit status 1 when a value was wrong. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 0: as many as all_reduce_perf does without -n and -w. */
struct settings {
  size_t min_bytes, max_bytes;
  int iters, warmups, rounds;
};

static int iterations_for(const struct settings* s, size_t bytes) {
  const size_t huge = (size_t)64 << 20;
  if (s->iters > 0) return s->iters;
  if (bytes <= ((size_t)64 << 10)) return 200;
  if (bytes <= huge) return 20;
  const size_t fewer = 20 * huge / bytes;
  return fewer < 5 ? 5 : (int)fewer;
}

static int warmups_for(const struct settings* s, size_t bytes) {
  if (s->warmups > 0) return s->warmups;
  return bytes <= ((size_t)64 << 20) ? 5 : 2;
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* Rank's value at an index: a small integer, so that sums are exact. */
static float value_at(int rank, size_t index) {
  return (float)((index * 7 + (size_t)rank * 13) % 251) - 125.0f;
}

static long wrong_elements(const float* send, float* recv, size_t count, int nranks) {
  memset(recv, 0x5b, count * sizeof *recv);
  MPI_Allreduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  long wrong = 0, total = 0;
  for (size_t i = 0; i < count; i++) {
    float expected = 0;
    for (int r = 0; r < nranks; r++) expected += value_at(r, i);
    wrong += recv[i] != expected;
  }
  MPI_Allreduce(&wrong, &total, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
  return total;
}

/* Microseconds per call, mean over ranks. */
static double time_round(const struct settings* s, const float* send, float* recv, size_t count,
                         int nranks) {
  const size_t bytes = count * sizeof *send;
  const int iters = iterations_for(s, bytes);
  for (int i = warmups_for(s, bytes); i > 0; i--) {
    MPI_Allreduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < iters; i++) {
    MPI_Allreduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
  double own = (MPI_Wtime() - start) / iters * 1e6, sum = 0;
  MPI_Allreduce(&own, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return sum / nranks;
}

static void* allocate(size_t bytes) {
  void* memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096 + 4096);
  if (memory == NULL) {
    fprintf(stderr, "mpi_allreduce: no memory for %zu bytes\n", bytes);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  return memory;
}

static struct settings parse(int argc, char** argv) {
  struct settings s = {4, (size_t)128 << 20, 0, 0, 1};
  for (int i = 1; i + 1 < argc; i += 2) {
    const long long value = atoll(argv[i + 1]);
    switch (argv[i][0] == '-' ? argv[i][1] : 0) {
      case 'b':
        s.min_bytes = (size_t)value;
        break;
      case 'e':
        s.max_bytes = (size_t)value;
        break;
      case 'n':
        s.iters = (int)value;
        break;
      case 'w':
        s.warmups = (int)value;
        break;
      case 'r':
        s.rounds = (int)value;
        break;
      default:
        fprintf(stderr, "mpi_allreduce: unknown flag %s\n", argv[i]);
        exit(2);
    }
  }
  if (s.min_bytes < sizeof(float)) s.min_bytes = sizeof(float);
  if (s.rounds < 1) s.rounds = 1;
  return s;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const struct settings s = parse(argc, argv);
  int rank = 0, nranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nranks);
  float* send = allocate(s.max_bytes);
  float* recv = allocate(s.max_bytes);
  double* rounds = malloc((size_t)s.rounds * sizeof *rounds);
  for (size_t i = 0; i < s.max_bytes / sizeof *send; i++) send[i] = value_at(rank, i);
  memset(recv, 1, s.max_bytes);

  long all_wrong = 0;
  for (size_t bytes = s.min_bytes; bytes <= s.max_bytes; bytes *= 2) {
    const size_t count = bytes / sizeof *send;
    for (int r = 0; r < s.rounds; r++) rounds[r] = time_round(&s, send, recv, count, nranks);
    qsort(rounds, (size_t)s.rounds, sizeof *rounds, by_value);
    const long wrong = wrong_elements(send, recv, count, nranks);
    all_wrong += wrong;
    if (rank == 0) {
      printf("%zu %.3f %ld\n", bytes, rounds[s.rounds / 2], wrong);
      fflush(stdout);
    }
  }
  free(rounds);
  free(recv);
  free(send);
  MPI_Finalize();
  return all_wrong != 0;
}
