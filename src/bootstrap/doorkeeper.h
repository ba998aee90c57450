// The doorkeeper: accepts connections and lets through those that complete the handshake.
//
// It lives inside somebody's epoll loop (the root's or a monitor's) and never blocks. Connections
// that have not proved themselves are few and short-lived, so strangers cannot take the descriptors
// that the program needs: beyond max_pending() the kernel's queue holds who comes, until one of
// them is through or has had its time. Who names the group believes itself connected when it has
// sent its proof, so it has kPatience; who has not has kLeastPatience.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/base/clock.h"
#include "src/base/fd.h"
#include "src/bootstrap/handshake.h"
#include "src/bootstrap/socket.h"

namespace libcomm {

// A connection whose caller knows the key.
struct Arrival {
  UniqueFd fd;
  HelloWire hello;
  SocketAddress from;
};

class Doorkeeper {
 public:
  static constexpr size_t kMaxPending = 1024;
  static constexpr double kPatience = 10;  // seconds
  // The same for one that has not named the group, where others wait for its place.
  static constexpr double kLeastPatience = 0.5;
  // Most callers that have not proved themselves: kMaxPending, or an eighth of the descriptors that
  // this process may have.
  static size_t max_pending();

  // Registers the listeners with `epoll` (not owned). Events carry the descriptor as data.fd.
  Doorkeeper(int epoll, Listeners listeners, const Key& key, uint32_t self, uint32_t nranks);

  const Endpoint& endpoint() const { return listeners_.endpoint; }
  size_t sockets() const { return listeners_.fds.size() + pending_.size(); }
  // Handles an event on `fd` if it is one of the doorkeeper's; false when it is not.
  bool on_event(int fd, std::vector<Arrival>* arrivals);
  // Drops whoever waits too long. Returns milliseconds until it should be called again, at most
  // cap.
  int expire(int cap_ms);
  // Closes everything; nobody arrives any more.
  void close();
  // The error number with which the system refused a descriptor for a caller last, when none was
  // held by a caller that has not proved itself; 0: it did not.
  int shortage() const { return shortage_; }
  // Callers that spoke the protocol but failed to prove the key, and the last one's address.
  size_t refused() const { return refused_; }
  const std::string& last_refused() const { return last_refused_; }

 private:
  struct Pending {
    UniqueFd fd;
    SocketAddress from;
    CalleeHandshake handshake;
    Deadline deadline;
    Deadline may_go;  // when it is dropped for others that wait
  };
  using PendingList = std::list<Pending>;  // oldest first

  void accept_from(int listener);
  // Drops one that has had its time; false: there is none.
  bool make_room();
  void drop(PendingList::iterator at);
  void forget(PendingList::iterator at);
  void pause_listeners();
  void resume_listeners();

  int epoll_;
  Listeners listeners_;
  Key key_;
  uint32_t self_;
  uint32_t nranks_;
  const size_t max_pending_ = max_pending();
  PendingList pending_;
  std::unordered_map<int, PendingList::iterator> by_fd_;
  int shortage_ = 0;
  bool paused_ = false;  // no room: listeners are not watched until `resume_`
  Deadline resume_;
  size_t refused_ = 0;
  std::string last_refused_;
};

// Adds, changes or removes a descriptor in an epoll set. Removing is needed before a descriptor
// that another process may share is closed.
bool epoll_add(int epoll, int fd, uint32_t events);
void epoll_change(int epoll, int fd, uint32_t events);
void epoll_remove(int epoll, int fd);

}  // namespace libcomm
