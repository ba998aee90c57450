// Inquiry: do the hosts of this rank's neighbours still answer?
//
// A rank that waits in vain asks its neighbours on the control links, who ask theirs. What counts
// is not a reply of theirs but whether the kernel at the other end acknowledges the question: it
// does that for a process that computes, or is stopped, too. So a host that is down, or cut off, is
// told from a program that makes no matching call.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/bootstrap/peer.h"

namespace libcomm {

class Inquiry {
 public:
  // Opens it; false while one is open, or was not long ago.
  bool open();
  bool is_open() const { return open_; }
  // When it is to be closed.
  const Deadline& until() const { return until_; }
  // A question has gone out on a link to a rank: its last byte is the `end`th that was written.
  void asked(int fd, int peer, uint64_t end) { questions_.push_back({fd, peer, end}); }
  // The link to this rank has ended because its host does not answer.
  void note_silent(int peer) { silent_.insert(peer); }
  // The link of this descriptor has ended: the descriptor may soon be another's.
  void forget(int fd);
  // Finds out who has not answered. `acknowledged`: so many bytes of a descriptor's link.
  void close(const std::function<uint64_t(int fd)>& acknowledged);

  // After close(), by rank.
  const std::set<int>& silent() const { return silent_; }
  const std::set<int>& answering() const { return answering_; }

 private:
  struct Question {
    int fd;
    int peer;
    uint64_t end;
  };

  bool open_ = false;
  Deadline until_;
  Clock::time_point opened_;
  std::vector<Question> questions_;
  std::set<int> silent_, answering_;
};

// An errno of a connection whose other end, or the way to it, is gone.
bool says_unreachable(int problem);

// Is the address of this end of a connection still one of this host's? Not when its interface is
// gone.
bool has_own_address(int fd);

// Why the group has failed, as found out by `rank`; by rank, who is where. kRemote.
Status unreachable(const Inquiry& inquiry, int rank, const std::vector<Peer>& peers);

}  // namespace libcomm
