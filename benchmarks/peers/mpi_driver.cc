// Times MPI's collectives; compiled once for each MPI implementation and started by its launcher.
//
// Open MPI's C++ bindings are left out: they need another library.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <string>

#include "benchmarks/peers/loop.h"

namespace peers {
namespace {

// MPI ends the process when a call fails, which is the default error handler.
class Mpi : public Library {
 public:
  Mpi() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &nranks_);
  }

  int rank() const override { return rank_; }
  int nranks() const override { return nranks_; }
  std::string version() const override;
  void run(const Call& call) override;
  void barrier() override { MPI_Barrier(MPI_COMM_WORLD); }
  double most(double value) override;

 private:
  int rank_ = 0;
  int nranks_ = 0;
};

// Without the lines that say how it was configured.
std::string Mpi::version() const {
#ifdef OPEN_MPI
  return "Open MPI " + std::to_string(OMPI_MAJOR_VERSION) + "." +
         std::to_string(OMPI_MINOR_VERSION) + "." + std::to_string(OMPI_RELEASE_VERSION);
#else
  return std::string("MPICH ") + MPICH_VERSION;
#endif
}

double Mpi::most(double value) {
  double result = 0;
  MPI_Allreduce(&value, &result, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return result;
}

void Mpi::run(const Call& call) {
  const auto count = static_cast<int>(call.count);
  MPI_Datatype type = MPI_FLOAT;
  MPI_Comm world = MPI_COMM_WORLD;
  switch (call.what) {
    case Collective::kAllReduce:
      MPI_Allreduce(call.send, call.recv, count, type, MPI_SUM, world);
      break;
    case Collective::kAllGather:
      MPI_Allgather(call.send, count, type, call.recv, count, type, world);
      break;
    case Collective::kReduceScatter:
      MPI_Reduce_scatter_block(call.send, call.recv, count, type, MPI_SUM, world);
      break;
    case Collective::kBroadcast:
      MPI_Bcast(call.recv, count, type, kRoot, world);
      break;
    case Collective::kReduce:
      MPI_Reduce(call.send, call.recv, count, type, MPI_SUM, kRoot, world);
      break;
    case Collective::kAllToAll:
      MPI_Alltoall(call.send, count, type, call.recv, count, type, world);
      break;
    case Collective::kGather:
      MPI_Gather(call.send, count, type, call.recv, count, type, kRoot, world);
      break;
    case Collective::kScatter:
      MPI_Scatter(call.send, count, type, call.recv, count, type, kRoot, world);
      break;
    case Collective::kSendRecv:
      MPI_Sendrecv(call.send, count, type, (rank_ + 1) % nranks_, 0, call.recv, count, type,
                   (rank_ + nranks_ - 1) % nranks_, 0, world, MPI_STATUS_IGNORE);
      break;
  }
}

// MPICH over UCX's TCP now and then hangs in MPI_Finalize when ranks outnumber cores. All results
// are out by then; they should not cost the time limit of the whole start.
constexpr unsigned kFinalizeSeconds = 5;
volatile sig_atomic_t status_of_loop = 0;

void give_up_finalize(int) {
  constexpr char kNote[] = "@note MPI_Finalize did not return within 5 s\n";
  [[maybe_unused]] const ssize_t written = write(STDOUT_FILENO, kNote, sizeof kNote - 1);
  _exit(status_of_loop);
}

void finalize(int status) {
  status_of_loop = status;
  signal(SIGALRM, give_up_finalize);
  alarm(kFinalizeSeconds);
  MPI_Finalize();
  alarm(0);
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  const peers::Settings settings = peers::parse_settings(argc, argv);
  if (settings.type != peers::Type::kFloat) {
    std::fprintf(stderr, "MPI has no type bfloat16\n");
    return 2;
  }
  if (settings.most_bytes() / sizeof(float) > INT_MAX) {
    std::fprintf(stderr, "MPI counts %d elements at most\n", INT_MAX);
    return 2;
  }
  MPI_Init(&argc, &argv);
  peers::Mpi library;
  const int status = peers::run_loop(library, settings);
  peers::finalize(status);
  return status;
}
