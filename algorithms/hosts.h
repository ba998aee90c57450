// Hosts: who shares a host with whom, and which local rank drives which share of the network.
//
// Hosts may have different numbers of ranks. `shares` is the least of them: on every host the local
// ranks 0 .. shares-1 are representatives, the others (extras) hand their part to one of them.
#pragma once

#include <algorithm>
#include <vector>

#include "src/schedule/builder.h"

namespace libcomm::hierarchical {

struct Hosts {
  Hosts(const ScheduleRequest& request, int rank_) : rank(rank_) {
    if (request.host_of.empty()) {
      members.resize(1);
      for (int r = 0; r < request.nranks; ++r) members[0].push_back(r);
      index = rank;
    } else {
      members.resize(
          static_cast<size_t>(*std::max_element(request.host_of.begin(), request.host_of.end())) +
          1);
      for (int r = 0; r < request.nranks; ++r) {
        std::vector<int>& host =
            members[static_cast<size_t>(request.host_of[static_cast<size_t>(r)])];
        if (r == rank) index = static_cast<int>(host.size());
        host.push_back(r);
      }
      here = request.host_of[static_cast<size_t>(rank)];
    }
    shares = request.nranks;
    for (const std::vector<int>& host : members)
      shares = std::min(shares, static_cast<int>(host.size()));
  }

  int count() const { return static_cast<int>(members.size()); }
  const std::vector<int>& at(int host) const {
    return members[static_cast<size_t>(modulo(host, count()))];
  }
  const std::vector<int>& local() const { return at(here); }
  int local_size() const { return static_cast<int>(local().size()); }
  // Local rank `i` (taken modulo the number) of this host.
  int neighbour(int i) const { return local()[static_cast<size_t>(modulo(i, local_size()))]; }
  bool is_representative() const { return index < shares; }
  int representative(int host, int share) const { return at(host)[static_cast<size_t>(share)]; }
  // The ranks of `host` whose blocks travel with share `share`: the representative first.
  std::vector<int> group(int host, int share) const {
    std::vector<int> ranks;
    for (size_t i = static_cast<size_t>(share); i < at(host).size();
         i += static_cast<size_t>(shares))
      ranks.push_back(at(host)[i]);
    return ranks;
  }

  std::vector<std::vector<int>> members;
  int rank;
  int here = 0;   // this rank's host
  int index = 0;  // its number among the local ranks
  int shares = 1;
};

}  // namespace libcomm::hierarchical
