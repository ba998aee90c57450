// Making communicators, and other set-up calls, side by side: what a group has gathered of them, or
// the ranks of commInitAll.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "src/api/handle.h"
#include "src/base/status.h"
#include "src/bootstrap/unique_id.h"

namespace libcomm {

// Those of one parent run in the order of the list, those of different parents (or of none) side by
// side: the first in the calling thread, the others on threads of their own.
struct Creation {
  const Communicator* parent = nullptr;     // null: none
  comm* handle = nullptr;                   // the one that is being created; null: none
  std::vector<UniqueIdBytes> meeting = {};  // the ids that the ranks meet by; empty: there are none
  std::function<Status()> run = nullptr;
  std::function<void()> skip = [] {};  // takes back what the call has handed out
};

// Runs them all. When a rank fails that the others cannot have heard of, those that are to meet it
// are cancelled, rather than left to wait for it; and all are where a thread is wanting. The
// failure that may be the cause, or the first kInProgress.
Status run_creations(std::span<const Creation> creations);

// Of several failures, in the order they came, the one that may be the cause: one that is no echo
// of a peer's, and a failure rather than kInProgress.
void keep_cause(Status status, Status* cause);

}  // namespace libcomm
