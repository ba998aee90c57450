#include "src/api/creations.h"

#include <algorithm>
#include <mutex>

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

  void note(const Creation& creation, Status status) {
    std::lock_guard lock(mutex_);
    // A failure of a peer is known to all ranks; in the background nobody waits here.
    const bool is_own =
        !status && status.code() != Code::kRemote && status.code() != Code::kInProgress;
    if (is_own && !creation.meeting.empty())
      for (const Creation& other : creations_)
        if (&other != &creation && other.meeting == creation.meeting) other.handle->cancel = true;
    keep_cause(std::move(status), &cause_);
  }
  // Without all of them none can go on: they may be waiting for each other.
  void cancel_all() {
    for (const Creation& creation : creations_)
      if (creation.handle != nullptr) creation.handle->cancel = true;
  }
  Status cause() && { return std::move(cause_); }

 private:
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
    for (const Creation* creation : chains[i]) outcome.note(*creation, creation->run());
  };
  JoinedThreads threads;
  Status wanting;
  for (size_t i = 0; i < chains.size() && wanting; ++i)
    wanting = threads.start("comm-create", [&, i] { run_chain(i); });
  if (!wanting) {
    outcome.cancel_all();
    for (size_t i = threads.size(); i < chains.size(); ++i) run_chain(i);
  }
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
