#include "tests/knobs/looking.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace knobs {

Folder::Folder() {
  char name[] = "/tmp/comm-knobs-XXXXXX";
  if (mkdtemp(name) == nullptr) throw world::Failed("no folder in /tmp");
  path_ = name;
}

Folder::~Folder() {
  std::error_code code;
  std::filesystem::remove_all(path_, code);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text, int mode) {
  std::ofstream(path) << text;
  std::filesystem::permissions(path, static_cast<std::filesystem::perms>(mode));
}

bool contains(const std::string& text, const std::string& part) { return count(text, part) > 0; }

int count(const std::string& text, const std::string& part) {
  int times = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++times;
  return times;
}

std::vector<float> uneven(int rank, size_t count) {
  std::vector<float> data(count);
  for (size_t i = 0; i < count; ++i)
    data[i] =
        std::ldexp(1.0F / static_cast<float>(3 + (i * 7 + static_cast<size_t>(rank) * 13) % 101),
                   static_cast<int>((i + static_cast<size_t>(rank) * 5) % 11));
  return data;
}

void sum(const Rank& rank, std::vector<float>& data) {
  COMM_OK(rank, commAllReduce(data.data(), data.data(), data.size(), commFloat32, commSum,
                              rank.comm, nullptr));
}

commMemStats_t stats_of(const Rank& rank) {
  commMemStats_t stats{};
  stats.size = sizeof stats;
  COMM_OK(rank, commGetMemStats(rank.comm, &stats));
  return stats;
}

Look look_at(const Environment& settings, int nranks, const world::Body& body) {
  const Folder folder;
  world::World world{.nranks = nranks};
  world.environment = {{"COMM_DEBUG", "INFO"}, {"COMM_DEBUG_FILE", folder / "log"}};
  world.environment.insert(world.environment.end(), settings.begin(), settings.end());
  Look seen;
  world::run(world, [&](Rank& rank) {
    body(rank);
    if (rank.rank == 0) seen.stats = stats_of(rank);
  });
  seen.log = read_file(folder / "log");
  return seen;
}

Look look(const Environment& settings, size_t count, int nranks) {
  std::vector<float> result;
  Look seen = look_at(settings, nranks, [&](Rank& rank) {
    std::vector<float> data = uneven(rank.rank, count);
    sum(rank, data);
    if (rank.rank == 0) result = data;
  });
  seen.result = std::move(result);
  return seen;
}

void launch(const Launch& launch, const world::Body& body) {
  world::World world{.nranks = launch.nranks, .kind = world::Kind::kProcesses, .connected = false};
  world.environment = {{"COMM_ID", world::free_address()},
                       {"COMM_NRANKS", std::to_string(launch.nranks)},
                       {"COMM_SECRET", "of the knob tests"}};
  world::run(world, [&](Rank& rank) {
    setenv("COMM_RANK", std::to_string(rank.rank).c_str(), 1);
    if (launch.settings) {
      for (const auto& [name, value] : launch.settings(rank.rank)) {
        if (value.empty())
          unsetenv(name.c_str());
        else
          setenv(name.c_str(), value.c_str(), 1);
      }
    }
    const commResult_t result = commInitFromLauncher(&rank.comm);
    if (launch.init)
      launch.init(rank, result);
    else
      COMM_OK(rank, result);
    if (result != commSuccess) return;
    body(rank);
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  });
}

}  // namespace knobs
