// Times Gloo's native library over its TCP transport on 127.0.0.1, between processes that it starts
// itself; they meet through a FileStore in --store.
//
// --algorithm picks the all-reduce: ring (Gloo's default), bcube, or the classes of the older
// interface, which work in place on one buffer and are set up ahead of the timed calls:
// halving_doubling, ring_chunked. Reduce-scatter exists as such a class alone.
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/alltoall.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/rendezvous/prefix_store.h>
#include <gloo/scatter.h>
#include <gloo/transport/tcp/device.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "benchmarks/harness/launch.h"
#include "benchmarks/peers/loop.h"

namespace peers {
namespace {

constexpr std::chrono::seconds kTimeout{60};

void sum_floats(void* result, const void* a, const void* b, size_t count) {
  gloo::sum<float>(result, a, b, count);
}

void take_larger_double(void* result, const void* a, const void* b, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    static_cast<double*>(result)[i] =
        std::max(static_cast<const double*>(a)[i], static_cast<const double*>(b)[i]);
  }
}

const float* floats(const void* memory) { return static_cast<const float*>(memory); }
float* floats(void* memory) { return static_cast<float*>(memory); }
// Gloo's options take inputs as pointers to non-const.
float* input(const void* memory) { return const_cast<float*>(floats(memory)); }

class Gloo : public Library {
 public:
  Gloo(int rank, const Settings& settings);

  int rank() const override { return rank_; }
  int nranks() const override { return nranks_; }
  std::string version() const override { return "Gloo (libgloo0)"; }
  std::string refuses(Collective what) const override;
  void run(const Call& call) override;
  void barrier() override;
  double most(double value) override;

 private:
  bool is_old_class(Collective what) const;
  std::shared_ptr<gloo::Context> connect();
  std::unique_ptr<gloo::Algorithm> make_old(const Call& call);
  void run_old(const Call& call);
  void all_reduce(const Call& call);
  void send_receive(const Call& call);

  int rank_;
  int nranks_;
  std::string algorithm_;
  std::shared_ptr<gloo::rendezvous::FileStore> store_;
  std::shared_ptr<gloo::transport::Device> device_;
  int connected_ = 0;  // contexts so far
  std::shared_ptr<gloo::Context> context_;
  // Old classes are bound to a buffer and a count. Each shrinks the socket buffers of its context,
  // so they have one of their own.
  std::shared_ptr<gloo::Context> old_context_;
  std::map<std::tuple<Collective, void*, size_t>, std::unique_ptr<gloo::Algorithm>> old_;
};

Gloo::Gloo(int rank, const Settings& settings)
    : rank_(rank),
      nranks_(settings.ranks),
      algorithm_(settings.algorithm),
      store_(std::make_shared<gloo::rendezvous::FileStore>(settings.store)) {
  gloo::transport::tcp::attr attributes;
  attributes.hostname = "127.0.0.1";
  device_ = gloo::transport::tcp::CreateDevice(attributes);
  context_ = connect();
}

std::shared_ptr<gloo::Context> Gloo::connect() {
  auto context = std::make_shared<gloo::rendezvous::Context>(rank_, nranks_);
  context->setTimeout(kTimeout);
  gloo::rendezvous::PrefixStore store(std::to_string(connected_++), *store_);
  context->connectFullMesh(store, device_);
  return context;
}

std::string Gloo::refuses(Collective what) const {
  const bool power_of_two = (nranks_ & (nranks_ - 1)) == 0;
  if (what == Collective::kReduceScatter && !power_of_two) {
    return "Gloo's reduce-scatter is measured on powers of two";
  }
  return "";
}

void Gloo::barrier() {
  gloo::BarrierOptions options(context_);
  gloo::barrier(options);
}

double Gloo::most(double value) {
  double result = 0;
  gloo::AllreduceOptions options(context_);
  options.setInput(&value, 1);
  options.setOutput(&result, 1);
  options.setReduceFunction(take_larger_double);
  gloo::allreduce(options);
  return result;
}

bool Gloo::is_old_class(Collective what) const {
  if (what == Collective::kReduceScatter) return true;
  return what == Collective::kAllReduce &&
         (algorithm_ == "halving_doubling" || algorithm_ == "ring_chunked");
}

std::unique_ptr<gloo::Algorithm> Gloo::make_old(const Call& call) {
  if (!old_context_) old_context_ = connect();
  if (call.what == Collective::kReduceScatter) {
    const auto block = static_cast<int>(call.count);
    const std::vector<int> blocks(static_cast<size_t>(nranks_), block);
    return std::make_unique<gloo::ReduceScatterHalvingDoubling<float>>(
        old_context_, std::vector<float*>{input(call.send)}, block * nranks_, blocks);
  }
  const auto count = static_cast<int>(call.count);
  const std::vector<float*> buffers{floats(call.recv)};
  if (algorithm_ == "ring_chunked") {
    return std::make_unique<gloo::AllreduceRingChunked<float>>(old_context_, buffers, count);
  }
  return std::make_unique<gloo::AllreduceHalvingDoubling<float>>(old_context_, buffers, count);
}

// All-reduce: recv = send first, as its users have to when they want to keep their input.
// Reduce-scatter: destroys its input and leaves the result at its start.
void Gloo::run_old(const Call& call) {
  const bool scatter = call.what == Collective::kReduceScatter;
  auto* buffer = scatter ? static_cast<void*>(input(call.send)) : call.recv;
  auto& algorithm = old_[{call.what, buffer, call.count}];
  if (!algorithm) algorithm = make_old(call);
  if (!scatter) std::memcpy(call.recv, call.send, call.count * sizeof(float));
  algorithm->run();
  if (scatter) std::memcpy(call.recv, call.send, call.count * sizeof(float));
}

void Gloo::all_reduce(const Call& call) {
  gloo::AllreduceOptions options(context_);
  options.setInput(input(call.send), call.count);
  options.setOutput(floats(call.recv), call.count);
  options.setReduceFunction(sum_floats);
  if (algorithm_ == "bcube") options.setAlgorithm(gloo::AllreduceOptions::Algorithm::BCUBE);
  gloo::allreduce(options);
}

void Gloo::send_receive(const Call& call) {
  const size_t bytes = call.count * sizeof(float);
  const auto from = context_->createUnboundBuffer(input(call.send), bytes);
  const auto into = context_->createUnboundBuffer(call.recv, bytes);
  from->send((rank_ + 1) % nranks_, 0);
  into->recv((rank_ + nranks_ - 1) % nranks_, 0);
  from->waitSend(kTimeout);
  into->waitRecv(kTimeout);
}

void Gloo::run(const Call& call) {
  if (is_old_class(call.what)) return run_old(call);
  const auto ranks = static_cast<size_t>(nranks_);
  switch (call.what) {
    case Collective::kAllGather: {
      gloo::AllgatherOptions options(context_);
      options.setInput(input(call.send), call.count);
      options.setOutput(floats(call.recv), call.count * ranks);
      return gloo::allgather(options);
    }
    case Collective::kBroadcast: {
      gloo::BroadcastOptions options(context_);
      options.setOutput(floats(call.recv), call.count);
      options.setRoot(kRoot);
      return gloo::broadcast(options);
    }
    case Collective::kReduce: {
      gloo::ReduceOptions options(context_);
      options.setInput(input(call.send), call.count);
      options.setOutput(floats(call.recv), call.count);
      options.setReduceFunction(sum_floats);
      options.setRoot(kRoot);
      return gloo::reduce(options);
    }
    case Collective::kAllToAll: {
      gloo::AlltoallOptions options(context_);
      options.setInput(input(call.send), call.count * ranks);
      options.setOutput(floats(call.recv), call.count * ranks);
      return gloo::alltoall(options);
    }
    case Collective::kGather: {
      gloo::GatherOptions options(context_);
      options.setInput(input(call.send), call.count);
      if (rank_ == kRoot) options.setOutput(floats(call.recv), call.count * ranks);
      options.setRoot(kRoot);
      return gloo::gather(options);
    }
    case Collective::kScatter: {
      gloo::ScatterOptions options(context_);
      std::vector<float*> blocks;
      for (size_t r = 0; r < ranks; ++r) blocks.push_back(input(call.send) + r * call.count);
      if (rank_ == kRoot) options.setInputs(blocks, call.count);
      options.setOutput(floats(call.recv), call.count);
      options.setRoot(kRoot);
      return gloo::scatter(options);
    }
    case Collective::kSendRecv:
      return send_receive(call);
    default:
      return all_reduce(call);
  }
}

int run_rank(int rank, const Settings& settings) {
  try {
    Gloo library(rank, settings);
    return run_loop(library, settings);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gloo_driver: rank %d: %s\n", rank, error.what());
    std::fflush(nullptr);
    _exit(1);  // Gloo's threads may hold anything
  }
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  const peers::Settings settings = peers::parse_settings(argc, argv);
  const std::vector<std::string> algorithms = {"", "ring", "bcube", "halving_doubling",
                                               "ring_chunked"};
  if (std::find(algorithms.begin(), algorithms.end(), settings.algorithm) == algorithms.end()) {
    std::fprintf(stderr, "--algorithm: ring, bcube, halving_doubling or ring_chunked\n");
    return 2;
  }
  if (settings.type != peers::Type::kFloat || settings.store.empty()) {
    std::fprintf(stderr, "gloo_driver: needs --store FOLDER, and has only --type float\n");
    return 2;
  }
  return bench::run_local_processes("gloo_driver", settings.ranks, [&](int rank, bench::Relay&) {
    return peers::run_rank(rank, settings);
  });
}
