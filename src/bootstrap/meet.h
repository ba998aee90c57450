// Meeting: from a rendezvous to a rank's place in the tree over which its group assembles.
#pragma once

#include <vector>

#include "src/bootstrap/handshake.h"
#include "src/bootstrap/rendezvous.h"
#include "src/bootstrap/root.h"
#include "src/bootstrap/unique_id.h"
#include "src/bootstrap/wait.h"

namespace libcomm {

// Decoded ids.
struct Meetings {
  std::vector<Meeting> all;  // several only when all are served

  // kInvalidArgument: no id, a bad one, several of them that cannot be combined, more ids than
  // ranks.
  static Result<Meetings> decode(const Rendezvous& rendezvous, int nranks);
};

struct Place {
  Key group_key{};              // from the keys of all ids and the group's size
  Answer parent;                // parent.parent is kNoRank at the tree's root
  std::vector<int> children;    // they will connect
  std::vector<UniqueFd> roots;  // connections to the roots, for Monitor::follow_root()
};

// Reports this rank, which listens at `endpoint`, and returns when all have reported. Rank 0 first
// serves the rendezvous where the id says so. Where ranks meet by file, the group's key comes from
// the id in the file and from the configured secret, if there is one.
Result<Place> meet(const Meetings& meetings, int rank, int nranks, const Endpoint& endpoint,
                   const Knobs& knobs, const WaitLimits& limits);

}  // namespace libcomm
