// Ranks for the tests of the shm transport, as threads or as forked processes, with a bootstrap
// that is nothing but shared memory, so that only the transport is under test.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "transports/shm/group.h"
#include "transports/shm/group_builder.h"

namespace libcomm::testing {

// The memory in which the ranks of one test meet; made before they start.
class Meeting {
 public:
  explicit Meeting(int nranks);
  ~Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  int nranks() const { return nranks_; }
  std::unique_ptr<Bootstrap> join(int rank);

 private:
  friend class MemoryBootstrap;
  struct Shared;
  const int nranks_;
  Shared* shared_;
};

// One rank's view once the group stands.
struct Rank {
  int rank = 0;
  Bootstrap* bootstrap = nullptr;
  std::vector<PeerFacts> facts;
  ShmGroup group;

  Status barrier() { return bootstrap->barrier(); }
};

struct RankOptions {
  // Called in the rank, before anything else (to change namespaces, say).
  std::function<void(int rank)> before = [](int) {};
  // What this rank's facts are to say.
  std::function<void(PeerFacts&)> change_facts = [](PeerFacts&) {};
  std::function<shm::GroupOptions(int rank)> group = [](int) { return shm::GroupOptions{}; };
  uint64_t buffsize = 0;  // 0: the knob's default
};

// What a rank does; the text of what went wrong, or empty.
using RankBody = std::function<std::string(Rank&)>;

// Runs `body` on every rank; fails the current test with the texts that came back.
void run_threads(int nranks, const RankBody& body, const RankOptions& options = {});
// The same in one forked process per rank. A rank that dies by a signal fails the test, unless it
// is in `may_die`.
void run_processes(int nranks, const RankBody& body, const RankOptions& options = {},
                   const std::vector<int>& may_die = {});

// Sends and receives whole messages by spinning; the error's text or empty.
std::string send_all(SendChannel& channel, const Signature& signature, const void* data,
                     size_t bytes);
std::string receive_one(RecvChannel& channel, std::vector<std::byte>* data, Signature* signature);

}  // namespace libcomm::testing

// In a RankBody: gives up with what failed.
#define RANK_CHECK(condition)                                                          \
  do {                                                                                 \
    if (!(condition)) return fmt::format("{}:{}: {}", __FILE__, __LINE__, #condition); \
  } while (false)
#define RANK_OK(status)                                                             \
  do {                                                                              \
    if (const ::libcomm::Status rank_status = (status); !rank_status)               \
      return fmt::format("{}:{}: {}", __FILE__, __LINE__, rank_status.to_string()); \
  } while (false)
