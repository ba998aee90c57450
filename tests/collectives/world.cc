#include "tests/collectives/world.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <list>
#include <mutex>
#include <new>
#include <thread>

#include "tests/base/held_port.h"

#if defined(__SANITIZE_THREAD__)
// A rank that is a process ends by _exit, past the destructors that join the library's last
// threads.
extern "C" [[gnu::visibility("default")]] const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "report_thread_leaks=0"; }
#endif

namespace world {
namespace {

bool served_id = false;  // by this process's commGetUniqueId; of the test's thread only

constexpr size_t kMostFailuresPerRank = 5;

// Errors on purpose are not for the log; COMM_DEBUG in the environment still has its way.
[[maybe_unused]] const int kQuiet = setenv("COMM_DEBUG", "NONE", 0);

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe(ends) != 0) throw Failed("pipe failed");
    read_end = ends[0];
    write_end = ends[1];
  }
  void close_read() {
    if (read_end >= 0) close(read_end);
    read_end = -1;
  }
  void close_write() {
    if (write_end >= 0) close(write_end);
    write_end = -1;
  }
};

// What Rank::meet counts in: memory that ranks share as threads and as forked processes.
class MeetingPlace {
 public:
  explicit MeetingPlace(int nranks)
      : bytes_(static_cast<size_t>(nranks) * sizeof(std::atomic<int>)),
        memory_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw Failed("no memory to meet in");
    counts_ = new (memory_) std::atomic<int>[static_cast<size_t>(nranks)]();
  }
  ~MeetingPlace() { munmap(memory_, bytes_); }
  MeetingPlace(const MeetingPlace&) = delete;
  MeetingPlace& operator=(const MeetingPlace&) = delete;
  std::atomic<int>* counts() const { return counts_; }

 private:
  size_t bytes_;
  void* memory_;
  std::atomic<int>* counts_ = nullptr;
};

void write_all(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write(fd, data, bytes);
    if (n <= 0) _exit(3);
    data += n;
    bytes -= static_cast<size_t>(n);
  }
}

void read_all(int fd, char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = read(fd, data, bytes);
    if (n <= 0) throw Failed("rank 0 made no unique id");
    data += n;
    bytes -= static_cast<size_t>(n);
  }
}

// One rank from its communicator's birth to its end. What it found wrong is in rank->failures.
void live(const World& world, const Body& body, Rank* rank) {
  try {
    const auto& begin = world.begin ? world.begin : first_of_all();
    if (begin) begin(rank->rank);
    if (world.connected)
      COMM_OK(*rank, commInitRank(&rank->comm, rank->nranks, rank->id, rank->rank));
    body(*rank);
    if (world.connected && rank->comm != nullptr) {
      const comm_t comm = std::exchange(rank->comm, nullptr);
      COMM_OK(*rank, commDestroy(comm));
    }
  } catch (const std::exception& e) {
    rank->failures.push_back(e.what());
    // The others must not wait for a rank that gave up.
    if (rank->comm != nullptr) (void)commAbort(std::exchange(rank->comm, nullptr));
  }
  rank->meetings[rank->rank] = INT_MAX;
}

std::string describe(const World& world, int rank, const std::string& text) {
  return "rank " + std::to_string(rank) + " of " + world.to_string() + ": " + text;
}

Environment host_environment(const World& world, int rank) {
  int first = 0;
  for (size_t host = 0; host < world.hosts.size(); ++host) {
    first += world.hosts[host];
    if (rank < first) return {{"COMM_HOSTID", "host" + std::to_string(host)}};
  }
  return {};
}

void run_threads(const World& world, const Body& body, const MeetingPlace& place) {
  commUniqueId id{};
  if (world.connected) {
    ASSERT_EQ(commGetUniqueId(&id), commSuccess) << commGetLastError(nullptr);
  }
  std::vector<Rank> ranks(static_cast<size_t>(world.nranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < world.nranks; ++r) {
    Rank& rank = ranks[static_cast<size_t>(r)];
    rank.rank = r;
    rank.nranks = world.nranks;
    rank.id = id;
    rank.meetings = place.counts();
    threads.emplace_back([&world, &body, &rank] { live(world, body, &rank); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Rank& rank : ranks)
    for (const std::string& text : rank.failures) ADD_FAILURE() << describe(world, rank.rank, text);
}

// In the child. Rank 0 makes the id and gives it to the others through their pipes.
[[noreturn]] void run_child(const World& world, const Body& body, const MeetingPlace& place, int r,
                            std::vector<Pipe>& id_pipes, int report) {
  signal(SIGPIPE, SIG_IGN);
  // If rank 0 ends without an id, the others shall see the end of their pipes.
  if (r != 0)
    for (Pipe& each : id_pipes) each.close_write();
  for (const auto& [name, value] : host_environment(world, r))
    setenv(name.c_str(), value.c_str(), 1);
  Rank rank;
  rank.rank = r;
  rank.nranks = world.nranks;
  rank.meetings = place.counts();
  try {
    if (world.connected && r == 0) {
      COMM_OK(rank, commGetUniqueId(&rank.id));
      for (size_t i = 1; i < id_pipes.size(); ++i)
        write_all(id_pipes[i].write_end, rank.id.internal, sizeof rank.id.internal);
    } else if (world.connected) {
      read_all(id_pipes[static_cast<size_t>(r)].read_end, rank.id.internal,
               sizeof rank.id.internal);
    }
    live(world, body, &rank);
  } catch (const std::exception& e) {
    rank.failures.push_back(e.what());
    rank.meetings[r] = INT_MAX;
  }
  for (const std::string& text : rank.failures) {
    const std::string line = text + '\0';
    write_all(report, line.data(), line.size());
  }
  _exit(rank.failures.empty() ? 0 : 1);
}

struct Child {
  pid_t pid = -1;
  Pipe report;
  std::string text;
};

// Reads all reports until the children have ended, or the deadline.
bool collect(std::vector<Child>& children, int timeout_seconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::seconds(timeout_seconds);
  for (;;) {
    std::vector<pollfd> fds;
    for (const Child& child : children)
      if (child.report.read_end >= 0) fds.push_back({child.report.read_end, POLLIN, 0});
    if (fds.empty()) return true;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || poll(fds.data(), fds.size(), static_cast<int>(left)) == 0) return false;
    for (Child& child : children) {
      for (const pollfd& entry : fds) {
        if (entry.fd != child.report.read_end || entry.revents == 0) continue;
        std::array<char, 4096> buffer;
        const ssize_t n = read(entry.fd, buffer.data(), buffer.size());
        if (n > 0) {
          child.text.append(buffer.data(), static_cast<size_t>(n));
        } else {
          child.report.close_read();
        }
        break;
      }
    }
  }
}

void run_processes(const World& world, const Body& body, const MeetingPlace& place) {
  std::vector<Pipe> id_pipes(static_cast<size_t>(world.nranks));
  std::vector<Child> children(static_cast<size_t>(world.nranks));
  for (int r = 0; r < world.nranks; ++r) {
    Child& child = children[static_cast<size_t>(r)];
    child.pid = fork();
    ASSERT_GE(child.pid, 0);
    if (child.pid == 0) {
      // A report ends when its writer has gone, so no sibling may hold its writing end.
      for (Child& other : children)
        if (&other != &child) other.report.close_write();
      run_child(world, body, place, r, id_pipes, child.report.write_end);
    }
    child.report.close_write();
  }
  for (Pipe& each : id_pipes) {
    each.close_read();
    each.close_write();
  }
  if (!collect(children, world.timeout_seconds)) {
    ADD_FAILURE() << world.to_string() << ": not done after " << world.timeout_seconds
                  << " s; ranks are killed";
    for (const Child& child : children) kill(child.pid, SIGKILL);
  }
  for (int r = 0; r < world.nranks; ++r) {
    Child& child = children[static_cast<size_t>(r)];
    child.report.close_read();
    int status = 0;
    waitpid(child.pid, &status, 0);
    size_t begin = 0;
    while (begin < child.text.size()) {
      const std::string text = child.text.c_str() + begin;
      begin += text.size() + 1;
      ADD_FAILURE() << describe(world, r, text);
    }
    if (std::find(world.victims.begin(), world.victims.end(), r) != world.victims.end()) {
      if (!WIFSIGNALED(status)) ADD_FAILURE() << describe(world, r, "was not killed");
    } else if (WIFSIGNALED(status))
      ADD_FAILURE() << describe(world, r, std::string("ended by ") + strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0 && child.text.empty())
      ADD_FAILURE() << describe(world, r, "exit status " + std::to_string(WEXITSTATUS(status)));
  }
}

}  // namespace

std::function<void(int rank)>& first_of_all() {
  static std::function<void(int rank)> first;
  return first;
}

std::string World::to_string() const {
  std::string text = std::to_string(nranks) + (kind == Kind::kThreads ? " threads" : " processes");
  for (size_t i = 0; i < hosts.size(); ++i)
    text += (i == 0 ? " on hosts of " : "+") + std::to_string(hosts[i]);
  for (const auto& [name, value] : environment) text += " " + name + "=" + value;
  return text;
}

void Rank::meet() {
  const int mine = ++meetings[rank];
  for (int r = 0; r < nranks; ++r)
    while (meetings[r] < mine) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void Rank::expect(bool good, const std::string& text) {
  if (!good && failures.size() < kMostFailuresPerRank) failures.push_back(text);
}

void Rank::require(bool good, const std::string& text) const {
  if (!good) throw Failed(text);
}

void Rank::succeed(commResult_t result, const char* call) const {
  if (result == commSuccess) return;
  throw Failed(std::string(call) + " gave " + std::to_string(result) + ": " +
               commGetLastError(nullptr));
}

void Rank::expect_error(commResult_t result, commResult_t wanted,
                        const std::vector<std::string>& parts, const char* call, comm_t handle) {
  const std::string text = commGetLastError(handle);
  if (result != wanted) {
    expect(false, std::string(call) + " gave " + std::to_string(result) + " instead of " +
                      std::to_string(wanted) + "; last error: " + text);
    return;
  }
  for (const std::string& part : parts)
    expect(text.find(part) != std::string::npos,
           std::string(call) + ": \"" + part + "\" is not in the text: " + text);
}

std::string free_address() {
  // Held until the process ends: a rank may come back to it at any time.
  static std::list<libcomm::test::HeldPort> held;
  return held.emplace_back().address();
}

// Whether threads go on beside this one; those that are about to end get time for it.
// ThreadSanitizer has one of its own.
bool has_threads() {
  constexpr int kTries = 1000;
  for (int i = 0; i < kTries; ++i) {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    if (std::distance(tasks, {}) <= 2) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

void run(const World& world, const Body& body) {
  if (kThreadSanitized && world.kind == Kind::kProcesses &&
      ((world.connected && served_id) || has_threads())) {
    std::printf("passed over: %s (ThreadSanitizer does not follow a fork beside threads)\n",
                world.to_string().c_str());
    return;
  }
  const ScopedEnvironment environment(world.environment);
  const MeetingPlace place(world.nranks);
  if (world.kind == Kind::kThreads) {
    served_id = served_id || world.connected;
    run_threads(world, body, place);
  } else {
    run_processes(world, body, place);
  }
}

ScopedEnvironment::ScopedEnvironment(const Environment& environment) {
  for (const auto& [name, value] : environment) {
    const char* old = std::getenv(name.c_str());
    saved_.push_back({name, old != nullptr, old != nullptr ? old : ""});
    setenv(name.c_str(), value.c_str(), 1);
  }
}

ScopedEnvironment::~ScopedEnvironment() {
  // Backwards: a variable may have been set twice.
  for (auto saved = saved_.rbegin(); saved != saved_.rend(); ++saved) {
    if (saved->was_set)
      setenv(saved->name.c_str(), saved->value.c_str(), 1);
    else
      unsetenv(saved->name.c_str());
  }
}

}  // namespace world
