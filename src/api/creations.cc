#include "src/api/creations.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "src/base/thread.h"

namespace libcomm {
namespace {

// One chain per parent, in the order of the calls.
std::vector<std::vector<const Creation*>> chains_of(std::span<const Creation> creations) {
  std::vector<std::vector<const Creation*>> chains;
  for (const Creation& creation : creations) {
    const auto same = [&](const auto& chain) {
      return creation.parent != nullptr && chain.front()->parent == creation.parent;
    };
    const auto found = std::find_if(chains.begin(), chains.end(), same);
    if (found == chains.end())
      chains.push_back({&creation});
    else
      found->push_back(&creation);
  }
  return chains;
}

// What the threads of one run_creations() have come to.
class Outcome {
 public:
  explicit Outcome(std::span<const Creation> creations) : creations_(creations) {}

  void run(const Creation& creation) {
    Status status = [&]() -> Status {
      try {
        return creation.run();
      } catch (const std::exception& e) {
        return error(Code::kSystem, "a set-up call failed: {}", e.what());
      }
    }();
    // A failure of a peer is known to all ranks; in the background nobody waits here.
    const bool is_own =
        !status && status.code() != Code::kRemote && status.code() != Code::kInProgress;
    {
      std::lock_guard lock(mutex_);
      keep_cause(std::move(status), &cause_);
    }
    if (is_own && !creation.meeting.empty()) cancel_those_who_meet(creation);
  }
  // Without all of them none can go on: they may be waiting for each other.
  void cancel_all() {
    for (const Creation& creation : creations_)
      if (creation.handle != nullptr) creation.handle->cancel = true;
  }
  Status cause() && { return std::move(cause_); }

 private:
  void cancel_those_who_meet(const Creation& failed) {
    // A rank that fails late has told the others, who pass it on to ranks elsewhere: not if they
    // were cancelled first.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    for (const Creation& other : creations_)
      if (&other != &failed && other.meeting == failed.meeting) other.handle->cancel = true;
  }

  const std::span<const Creation> creations_;
  std::mutex mutex_;
  Status cause_;
};

}  // namespace

Status run_creations(std::span<const Creation> creations) {
  if (creations.empty()) return Status::ok();
  const auto chains = chains_of(creations);
  Outcome outcome(creations);
  const auto run_chain = [&](size_t i) {
    for (const Creation* creation : chains[i]) outcome.run(*creation);
  };
  JoinedThreads threads;
  Status wanting;
  for (size_t i = 1; i < chains.size() && wanting; ++i)
    wanting = threads.start("comm-create", [&, i] { run_chain(i); });
  const size_t started = threads.size();
  if (!wanting) outcome.cancel_all();
  run_chain(0);
  for (size_t i = started + 1; i < chains.size(); ++i) run_chain(i);
  threads.join();
  if (!wanting) return wanting;
  return std::move(outcome).cause();
}

void keep_cause(Status status, Status* cause) {
  const auto weight = [](const Status& one) {
    return one.is_ok()                       ? 0
           : one.code() == Code::kInProgress ? 1
           : one.code() == Code::kRemote     ? 2
                                             : 3;
  };
  if (weight(status) > weight(*cause)) *cause = std::move(status);
}

}  // namespace libcomm
