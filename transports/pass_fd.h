// How descriptors of memory get from the process that made them into others of the host: of a
// group's shared memory, and of GPU memory.
//
// Three ways, in this order: /proc/PID/fd (same pid namespace and user, any network namespace), an
// abstract Unix socket (same network namespace), a Unix socket in the file system (same mount
// namespace; its name exists only while peers are fetching). A descriptor that comes over a socket
// goes only to who proves to be a member, and what arrives is believed only when it holds the
// group's nonce. Only a socket passes the descriptor itself: /proc opens the file anew, which those
// of GPU memory do not allow.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "src/base/clock.h"
#include "src/base/fd.h"
#include "src/base/status.h"

namespace libcomm {

using Nonce = std::array<uint64_t, 2>;
using Proof = std::array<uint64_t, 4>;

enum class FdWay : int { kProc, kAbstractSocket, kPathSocket };
const char* name_of(FdWay way);

// Opens descriptor `fd` of process `pid`. kSystem when the kernel refuses it.
Result<UniqueFd> open_peer_fd(int64_t pid, int fd);

// A descriptor and what its owner says of it.
struct PassedFd {
  UniqueFd fd;
  std::array<uint64_t, 3> facts{};
};

// Hands descriptors to those who show one of the expected proofs. Serves on a thread of its own
// from start() until it is destroyed.
class FdServer {
 public:
  // The one that a client wants, which is closed when it has been passed; a failure: there is none.
  using Give = std::function<Result<PassedFd>(uint64_t wanted)>;
  // The way is one of the sockets, whose address is a function of the nonce.
  static Result<std::unique_ptr<FdServer>> start(FdWay way, const Nonce& nonce, Give give,
                                                 std::vector<Proof> expected);
  ~FdServer();
  FdServer(const FdServer&) = delete;
  FdServer& operator=(const FdServer&) = delete;

 private:
  FdServer() = default;
  void serve();
  void answer(UniqueFd client) const;

  Give give_;
  std::vector<Proof> expected_;
  std::string path_;  // to be unlinked; empty for an abstract socket
  UniqueFd listener_;
  UniqueFd stop_;  // eventfd
  std::thread thread_;
};

// The other end; waits at most until the deadline, or until `given_up`, which is asked now and
// then, says so. kSystem.
Result<PassedFd> fetch_fd(FdWay way, const Nonce& nonce, const Proof& proof, uint64_t wanted,
                          Deadline deadline, const std::function<bool()>& given_up = nullptr);

}  // namespace libcomm
