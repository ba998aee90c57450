// Times libcomm through its public C API, between processes that it starts itself.
#include <comm.h>

#include <cstdio>
#include <string>

#include "benchmarks/harness/world.h"
#include "benchmarks/peers/loop.h"

namespace peers {
namespace {

class Comm : public Library {
 public:
  // memory: "comm" for commMemAlloc, "" for ordinary memory.
  Comm(comm_t comm, int rank, int nranks, const std::string& memory)
      : comm_(comm), rank_(rank), nranks_(nranks), shared_(memory == "comm") {}

  int rank() const override { return rank_; }
  int nranks() const override { return nranks_; }
  std::string version() const override;
  void* allocate(size_t bytes) override;
  void release(void* memory) override;
  void run(const Call& call) override;
  void barrier() override { require(commBarrier(comm_, nullptr), "commBarrier"); }
  double most(double value) override;

 private:
  void require(commResult_t result, const char* call) const {
    bench::require(result, call, rank_, comm_);
  }
  commResult_t start(const Call& call);

  comm_t comm_;
  int rank_;
  int nranks_;
  bool shared_;
};

std::string Comm::version() const {
  const char* version = "";
  require(commGetLibraryVersion(&version), "commGetLibraryVersion");
  return std::string("libcomm ") + version;
}

void* Comm::allocate(size_t bytes) {
  if (!shared_) return Library::allocate(bytes);
  void* memory = nullptr;
  require(commMemAlloc(&memory, bytes), "commMemAlloc");
  return memory;
}

void Comm::release(void* memory) {
  if (!shared_) return Library::release(memory);
  require(commMemFree(memory), "commMemFree");
}

double Comm::most(double value) {
  double result = 0;
  require(commAllReduce(&value, &result, 1, commFloat64, commMax, comm_, nullptr), "commAllReduce");
  return result;
}

void Comm::run(const Call& call) { require(start(call), name_of(call.what)); }

commResult_t Comm::start(const Call& call) {
  const commDataType_t type = call.type == Type::kFloat ? commFloat32 : commBfloat16;
  switch (call.what) {
    case Collective::kAllReduce:
      return commAllReduce(call.send, call.recv, call.count, type, commSum, comm_, nullptr);
    case Collective::kAllGather:
      return commAllGather(call.send, call.recv, call.count, type, comm_, nullptr);
    case Collective::kReduceScatter:
      return commReduceScatter(call.send, call.recv, call.count, type, commSum, comm_, nullptr);
    case Collective::kBroadcast:
      return commBcast(call.recv, call.count, type, kRoot, comm_, nullptr);
    case Collective::kReduce:
      return commReduce(call.send, call.recv, call.count, type, commSum, kRoot, comm_, nullptr);
    case Collective::kAllToAll:
      return commAlltoAll(call.send, call.recv, call.count, type, comm_, nullptr);
    case Collective::kGather:
      return commGather(call.send, call.recv, call.count, type, kRoot, comm_, nullptr);
    case Collective::kScatter:
      return commScatter(call.send, call.recv, call.count, type, kRoot, comm_, nullptr);
    default:
      break;
  }
  const int next = (rank_ + 1) % nranks_;
  const int previous = (rank_ + nranks_ - 1) % nranks_;
  require(commGroupStart(), "commGroupStart");
  require(commSend(call.send, call.count, type, next, comm_, nullptr), "commSend");
  require(commRecv(call.recv, call.count, type, previous, comm_, nullptr), "commRecv");
  return commGroupEnd();
}

int run_rank(bench::World& world, const Settings& settings) {
  const int rank = world.proc();
  comm_t comm = nullptr;
  bench::require(commInitRank(&comm, world.nprocs(), world.make_id(), rank), "commInitRank", rank,
                 nullptr);
  int status = 0;
  {
    Comm library(comm, rank, world.nprocs(), settings.memory);
    status = run_loop(library, settings);
  }
  bench::require(commDestroy(comm), "commDestroy", rank, nullptr);
  return status;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  const peers::Settings settings = peers::parse_settings(argc, argv);
  if (!settings.memory.empty() && settings.memory != "malloc" && settings.memory != "comm") {
    std::fprintf(stderr, "--memory: malloc or comm, not %s\n", settings.memory.c_str());
    return 2;
  }
  return bench::run_world("libcomm_driver", settings.ranks, settings.ranks,
                          [&](auto& world) { return peers::run_rank(world, settings); });
}
