// What the knob tests look at: groups that run under some settings and what can be seen of them
// through the public API, in the log file, in results and in the process.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/collectives/world.h"

namespace knobs {

using world::Environment;
using world::Rank;

// A folder of its own for one test, deleted with this.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text, int mode = 0600);
bool contains(const std::string& text, const std::string& part);
// How often `part` occurs in `text`.
int count(const std::string& text, const std::string& part);

// Numbers whose sum depends on the order in which they are added; others at each rank.
std::vector<float> uneven(int rank, size_t count);
// An in-place sum over the ranks.
void sum(const Rank& rank, std::vector<float>& data);
commMemStats_t stats_of(const Rank& rank);

// What a group of threads showed.
struct Look {
  commMemStats_t stats{};  // of rank 0, after the operations
  std::string log;         // at INFO, of all ranks
  std::vector<float> result;
};

// Runs one all-reduce of `count` uneven numbers over `nranks` threads under these settings.
Look look(const Environment& settings, size_t count = 1000, int nranks = 2);
// The same with a body of the caller's.
Look look_at(const Environment& settings, int nranks, const world::Body& body);

// A group of processes over commInitFromLauncher. `settings` gives the settings of each rank and is
// called in its process; empty values are not set. `init` receives the result when it is given,
// otherwise the group must come about; then `body` runs.
struct Launch {
  int nranks = 2;
  std::function<Environment(int rank)> settings;
  std::function<void(Rank&, commResult_t)> init;
};
void launch(const Launch& launch, const world::Body& body);

}  // namespace knobs
