// World: a group of ranks for tests of the public API, as threads of this process or as forked
// processes.
//
// A rank's body reports what is wrong as text, by throwing (require, COMM_OK) or by going on
// (expect). Texts travel to the test's process, where each becomes a failure of the running test.
// Only comm.h is used: what is tested here is what a user links.
#pragma once

#include <atomic>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm.h"

namespace world {

using Environment = std::vector<std::pair<std::string, std::string>>;

enum class Kind { kThreads, kProcesses };

struct World {
  int nranks = 2;
  Kind kind = Kind::kThreads;
  // Set before the ranks start and taken back afterwards.
  Environment environment = {};
  // How many ranks each pretended host has, such as {3, 1}; empty: one host. Needs kProcesses.
  std::vector<int> hosts = {};
  // Ranks get their communicator from the harness, and it is destroyed when the body returns.
  bool connected = true;
  int timeout_seconds = 120;      // kProcesses: then all ranks are killed
  std::vector<int> victims = {};  // kProcesses: these end by SIGKILL, as they should
  // Called first on every rank, before its communicator is made; empty: first_of_all().
  std::function<void(int rank)> begin = {};

  std::string to_string() const;
};

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a body has. Belongs to the rank's thread.
struct Rank {
  int rank = 0;
  int nranks = 1;
  commUniqueId id{};
  comm_t comm = nullptr;  // a body that ends it sets it to null

  // Returns when every rank has come here as often as this one, or has ended. What this rank then
  // breaks (it aborts, revokes, dies) cannot be seen by what another did before: its commInitRank,
  // say, which may return long after this rank's.
  void meet();
  // Notes a failure and goes on.
  void expect(bool good, const std::string& text);
  // Throws Failed.
  void require(bool good, const std::string& text) const;
  void succeed(commResult_t result, const char* call) const;
  // The result is `wanted`, and the last error's text (of `handle`; NULL: of the thread) holds
  // every part.
  void expect_error(commResult_t result, commResult_t wanted, const std::vector<std::string>& parts,
                    const char* call, comm_t handle = nullptr);

  std::vector<std::string> failures;
  std::atomic<int>* meetings = nullptr;  // how often each rank has come to meet(); in shared memory
};

#define COMM_OK(rank, call) (rank).succeed((call), #call)
#define COMM_FAILS(rank, call, wanted, ...) \
  (rank).expect_error((call), (wanted), {__VA_ARGS__}, #call)

using Body = std::function<void(Rank&)>;

// What every rank of worlds without a `begin` calls first; nothing until a program says so.
std::function<void(int rank)>& first_of_all();

// Runs `body` on every rank and waits for all of them.
void run(const World& world, const Body& body);

// "127.0.0.1:port", with a port that nobody else gets until this process ends (HeldPort).
std::string free_address();

// Environment variables for as long as this lives; no other thread may run at its ends.
class ScopedEnvironment {
 public:
  explicit ScopedEnvironment(const Environment& environment);
  ~ScopedEnvironment();
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  struct Saved {
    std::string name;
    bool was_set;
    std::string value;
  };
  std::vector<Saved> saved_;
};

// Sanitizer builds are slower and check other things: tests keep a reduced set there.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// ThreadSanitizer does not follow a process that forks beside threads, or after ids that it served.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitized = true;
#else
inline constexpr bool kThreadSanitized = false;
#endif

}  // namespace world
