#include "tests/faults/scene.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <new>
#include <thread>

namespace faults {
namespace {

int count_entries(const char* folder) {
  int count = 0;
  std::error_code code;
  for (auto it = std::filesystem::directory_iterator(folder, code);
       !code && it != std::filesystem::directory_iterator(); it.increment(code))
    ++count;
  return count;
}

// What the open descriptors are, for the text of a failure.
std::string list_descriptors() {
  std::string list;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    list += " " + std::filesystem::read_symlink(entry.path(), code).string();
  return list;
}

std::string count_text(const Holdings& holdings) {
  return std::to_string(holdings.descriptors) + " descriptors and " +
         std::to_string(holdings.threads) + " threads";
}

}  // namespace

Scene& Scene::make() {
  void* memory =
      mmap(nullptr, sizeof(Scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw world::Failed("no memory for the scene");
  return *new (memory) Scene;
}

commResult_t try_join(world::Rank& rank, Scene& scene) {
  scene.pids[rank.rank] = getpid();
  if (rank.rank == 0) {
    COMM_OK(rank, commGetUniqueId(&scene.id));
    scene.have_id = 1;
  }
  await([&] { return scene.have_id == 1; }, "rank 0 made no id");
  return commInitRank(&rank.comm, rank.nranks, scene.id, rank.rank);
}

void join(world::Rank& rank, Scene& scene) { COMM_OK(rank, try_join(rank, scene)); }

void await(const std::function<bool()>& met, const char* what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!met()) {
    if (std::chrono::steady_clock::now() > deadline) throw world::Failed(what);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

Holdings Holdings::now() {
  return {count_entries("/proc/self/fd"), count_entries("/proc/self/task")};
}

void end_clean(world::Rank& rank, const Holdings& before) {
  if (rank.comm != nullptr) COMM_OK(rank, commAbort(std::exchange(rank.comm, nullptr)));
  // The server of an id ends on its own thread, after the others have come or failed; one
  // descriptor to wake it stays until this process makes another id.
  const int most = before.descriptors + (rank.rank == 0 ? 1 : 0);
  // ThreadSanitizer may have started a thread of its own.
  const int threads = before.threads + (world::kSanitized ? 1 : 0);
  Holdings after = Holdings::now();
  for (int i = 0; i < 12000; ++i) {
    if (after.descriptors <= most && after.threads <= threads) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    after = Holdings::now();
  }
  rank.expect(false, "holds " + count_text(after) + " after the end, " + count_text(before) +
                         " before; open:" + list_descriptors());
}

std::set<std::string> shared_names() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
    if (entry.path().filename().string().find("comm") != std::string::npos)
      names.insert(entry.path());
  return names;
}

void die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

}  // namespace faults
