// Scene: what the ranks of a fault test share besides the library: an id, a few counters and
// process ids in memory that was there before they were forked; and what a process holds, to
// compare before and after.
#pragma once

#include <atomic>
#include <functional>
#include <set>
#include <string>

#include "tests/collectives/world.h"

namespace faults {

inline constexpr int kMostRanks = 8;

struct Scene {
  std::atomic<int> ready{0};
  std::atomic<int> done{0};
  std::atomic<int> flag{0};
  std::atomic<int> have_id{0};
  std::atomic<int> pids[kMostRanks] = {};
  commUniqueId id{};

  // Lives in shared memory until the process ends.
  static Scene& make();
};

// Makes the id at rank 0, waits for it elsewhere; then commInitRank.
void join(world::Rank& rank, Scene& scene);
commResult_t try_join(world::Rank& rank, Scene& scene);

// Waits until `met`; throws world::Failed with `what` when that takes 60 s.
void await(const std::function<bool()>& met, const char* what);

// What this process holds.
struct Holdings {
  int descriptors = 0;
  int threads = 0;
  static Holdings now();
};

// Ends the communicator and looks whether everything is as `before`, which was counted before it.
void end_clean(world::Rank& rank, const Holdings& before);

// The names in /dev/shm that speak of this library.
std::set<std::string> shared_names();

[[noreturn]] void die();

}  // namespace faults
