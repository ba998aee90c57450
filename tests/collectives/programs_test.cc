// Random programs: calls of all collectives and messages on several communicators, alone and in
// groups, with and without a host stream, one after the other without a barrier. What one call does
// must not depend on those beside it.
//
// PROGRAMS_SEED=N runs other programs than the usual ones.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <random>

#include "tests/collectives/call.h"

namespace matrix {
namespace {

using elements::Op;
using world::Kind;
using world::kSanitized;
using world::Rank;
using world::World;

constexpr size_t kCommunicators = 3;
constexpr size_t kMostCalls = 6;
constexpr size_t kCounts[] = {0, 1, 2, 3, 7, 8, 15, 33, 64, 65, 127, 250, 1000, 1025, 4097};
constexpr size_t kLargeCounts[] = {20011, 65537, 100003};

struct Step {
  struct Entry {
    Call call;
    size_t communicator;
    bool on_stream;
  };
  std::vector<Entry> entries;
  bool grouped = false;
};

// The same on all ranks. One in two has no streams: calls then stay in the thread that makes them.
class Program {
 public:
  explicit Program(uint64_t seed)
      : random_(seed), call_seed_(seed << 20), has_streams_(seed % 2 == 0) {}

  Step next() {
    Step step;
    step.grouped = chance(2);
    const size_t calls = chance(3) ? 1 : 1 + below(kMostCalls);
    const bool streams = has_streams_ && chance(2);
    for (size_t i = 0; i < calls; ++i) {
      const size_t communicator = chance(2) ? 0 : below(kCommunicators);
      step.entries.push_back({next_call(), communicator, streams && !chance(4)});
    }
    return step;
  }

 private:
  size_t below(size_t limit) { return static_cast<size_t>(random_() % limit); }
  bool chance(size_t one_in) { return below(one_in) == 0; }

  Call next_call() {
    Call call;
    call.collective = static_cast<Collective>(below(kNumCollectives));
    do {
      call.type = static_cast<commDataType_t>(below(commNumTypes));
      call.op = static_cast<Op>(below(elements::kNumOps));
    } while (!elements::is_defined(call.op, call.type));
    call.count = chance(12) ? kLargeCounts[below(std::size(kLargeCounts))]
                            : kCounts[below(std::size(kCounts))];
    call.root = static_cast<int>(below(1024));
    call.in_place = chance(2);
    call.memory = static_cast<Memory>(below(3));
    call.seed = ++call_seed_;
    return call;
  }

  std::mt19937_64 random_;
  uint64_t call_seed_;
  const bool has_streams_;
};

// The world, its odd or even half, and the world the other way round.
class Communicators {
 public:
  explicit Communicators(Rank& world) : world_(world) {
    views_[0].comm = world.comm;
    COMM_OK(world, commSplit(world.comm, world.rank % 2, world.rank, &views_[1].comm, nullptr));
    COMM_OK(world, commSplit(world.comm, 0, -world.rank, &views_[2].comm, nullptr));
    for (Rank& view : views_) {
      COMM_OK(world, commUserRank(view.comm, &view.rank));
      COMM_OK(world, commCount(view.comm, &view.nranks));
    }
  }
  ~Communicators() {
    for (size_t i = kCommunicators; i-- > 1;)
      if (views_[i].comm != nullptr) (void)commDestroy(views_[i].comm);
  }
  Communicators(const Communicators&) = delete;
  Communicators& operator=(const Communicators&) = delete;

  Rank& view(size_t index) { return views_[index]; }
  // Hands what was found wrong to the world's rank.
  void report(const std::string& where) {
    for (Rank& view : views_) {
      for (const std::string& failure : view.failures) world_.expect(false, where + failure);
      view.failures.clear();
    }
  }

 private:
  Rank& world_;
  std::array<Rank, kCommunicators> views_;
};

class HostStream {
 public:
  explicit HostStream(Rank& rank) { COMM_OK(rank, commHostStreamCreate(&stream_)); }
  ~HostStream() { (void)commHostStreamDestroy(stream_); }
  HostStream(const HostStream&) = delete;
  HostStream& operator=(const HostStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

void run_step(Rank& world, const Step& step, Communicators& communicators,
              std::deque<Arena>& arenas, const HostStream& stream) {
  std::vector<Performance> made;
  for (size_t i = 0; i < step.entries.size(); ++i) {
    const Step::Entry& entry = step.entries[i];
    Rank& view = communicators.view(entry.communicator);
    Call call = entry.call;
    call.root %= view.nranks;
    if (entry.on_stream) call.stream = stream.get();
    made.emplace_back(view, arenas[i], call);
  }
  if (step.grouped) COMM_OK(world, commGroupStart());
  for (Performance& performance : made) performance.make();
  if (step.grouped) COMM_OK(world, commGroupEnd());
  COMM_OK(world, commHostStreamSynchronize(stream.get()));
  for (Performance& performance : made) performance.check();
}

void run_programs(const World& world, uint64_t first_seed, uint64_t last_seed) {
  constexpr int kSteps = kSanitized ? 20 : 80;
  if (const char* wish = std::getenv("PROGRAMS_SEED"))
    first_seed = last_seed = std::strtoull(wish, nullptr, 10);
  for (uint64_t seed = first_seed; seed <= last_seed; ++seed) {
    SCOPED_TRACE(world.to_string() + ", PROGRAMS_SEED=" + std::to_string(seed));
    world::run(world, [&](Rank& rank) {
      Communicators communicators(rank);
      const HostStream stream(rank);
      std::deque<Arena> arenas(kMostCalls);
      Program program(seed);
      for (int i = 0; i < kSteps; ++i) {
        run_step(rank, program.next(), communicators, arenas, stream);
        communicators.report("step " + std::to_string(i) + ": ");
      }
    });
  }
}

TEST(RandomPrograms, OfThreadsGiveExactResults) {
  run_programs({.nranks = 1}, 1, 2);
  run_programs({.nranks = 2}, 3, 6);
  run_programs({.nranks = 3}, 7, 10);
  run_programs({.nranks = 5}, 11, 12);
}

TEST(RandomPrograms, OfProcessesGiveExactResults) {
  run_programs({.nranks = 2, .kind = Kind::kProcesses}, 21, 24);
  run_programs({.nranks = 3, .kind = Kind::kProcesses}, 25, 28);
  run_programs({.nranks = 6, .kind = Kind::kProcesses}, 29, 30);
}

TEST(RandomPrograms, OverSocketsGiveExactResults) {
  run_programs({.nranks = 3, .kind = Kind::kProcesses, .environment = {{"COMM_SHM_DISABLE", "1"}}},
               31, 34);
}

TEST(RandomPrograms, OfSeveralHostsGiveExactResults) {
  run_programs({.nranks = 5, .kind = Kind::kProcesses, .hosts = {3, 2}}, 41, 42);
  run_programs({.nranks = 4, .kind = Kind::kProcesses, .hosts = {1, 2, 1}}, 43, 44);
}

TEST(RandomPrograms, OfRanksThatSleepGiveExactResults) {
  run_programs({.nranks = 3, .environment = {{"COMM_WAIT", "block"}}}, 51, 52);
}

TEST(RandomPrograms, WithCommunicatorsSideBySideGiveExactResults) {
  run_programs(
      {.nranks = 3, .kind = Kind::kProcesses, .environment = {{"COMM_LAUNCH_MODE", "PARALLEL"}}},
      61, 62);
}

}  // namespace
}  // namespace matrix
