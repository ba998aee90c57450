// How the descriptor of a group's memory gets from the process that made it into the others.
//
// Three ways, in this order: /proc/PID/fd (same pid namespace and user, any network namespace), an
// abstract Unix socket (same network namespace), a Unix socket in the file system (same mount
// namespace; its name exists only while peers are fetching). A descriptor that comes over a socket
// goes only to who proves to be a member, and what arrives is believed only when it holds the
// group's nonce.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "src/base/clock.h"
#include "src/base/fd.h"
#include "src/base/status.h"
#include "transports/shm/layout.h"

namespace libcomm::shm {

enum class Way : int { kProc, kAbstractSocket, kPathSocket };
const char* name_of(Way way);

// Opens descriptor `fd` of process `pid`. kSystem when the kernel refuses it.
Result<UniqueFd> open_peer_fd(int64_t pid, int fd);

// Hands one descriptor to those who show one of the expected proofs. Serves on a thread of its own
// from start() until it is destroyed.
class FdServer {
 public:
  // Way is one of the sockets; the address is a function of the nonce, see socket_name().
  static Result<std::unique_ptr<FdServer>> start(Way way, const Nonce& nonce, int fd,
                                                 std::vector<Proof> expected);
  ~FdServer();
  FdServer(const FdServer&) = delete;
  FdServer& operator=(const FdServer&) = delete;

 private:
  FdServer() = default;
  void serve();
  void answer(UniqueFd client) const;

  int fd_ = -1;  // the caller's
  std::vector<Proof> expected_;
  std::string path_;  // to be unlinked; empty for an abstract socket
  UniqueFd listener_;
  UniqueFd stop_;  // eventfd
  std::thread thread_;
};

// The other end; waits at most until the deadline.
Result<UniqueFd> fetch_fd(Way way, const Nonce& nonce, const Proof& proof, Deadline deadline);

}  // namespace libcomm::shm
