// Sockets: listening, connecting and moving bytes, all non-blocking and close-on-exec.
#pragma once

#include <cstddef>
#include <vector>

#include "src/base/fd.h"
#include "src/base/status.h"
#include "src/bootstrap/address.h"

namespace libcomm {

// Listens on `address` (port 0: the kernel picks) and stores where. The error keeps errno's text
// and names address and port; `refused` receives errno when given.
Result<UniqueFd> listen_on(const SocketAddress& address, SocketAddress* bound,
                           int* refused = nullptr);

// The listeners of one endpoint, one socket per address.
struct Listeners {
  std::vector<UniqueFd> fds;
  Endpoint endpoint;

  // One listener on each address that can be bound; fails when none can.
  static Result<Listeners> open(const Endpoint& addresses);
};

// A connection that arrived, non-blocking; invalid when none waits. `problem` receives errno when
// accepting failed for lack of descriptors or memory, else 0.
UniqueFd accept_one(int listener, SocketAddress* from, int* problem);

// Who is at the other end of a connection; an invalid value when that is not known.
SocketAddress remote_address(int fd);

// Starts connecting. The connection is complete when the socket becomes writable and
// finish_connect() says 0. `problem` receives errno when it failed at once, and is given.
Result<UniqueFd> start_connect(const SocketAddress& address, int* problem = nullptr);
// errno of a finished connection attempt, 0 for success.
int finish_connect(int fd);

// Small messages go out at once; a peer whose host vanishes is noticed after about half a minute.
void tune_control_socket(int fd);

// What one attempt to move bytes did.
enum class Moved { kSome, kNothing, kClosed };
// Reads at most `bytes`; `count` receives how many. kClosed: end of stream or a broken connection,
// of which `problem` receives the errno.
Moved read_some(int fd, void* data, size_t bytes, size_t* count, int* problem = nullptr);
Moved write_some(int fd, const void* data, size_t bytes, size_t* count, int* problem = nullptr);
// Of what was written, sent or not, what the other end's kernel has not acknowledged (tcp(7)).
uint64_t unacknowledged_bytes(int fd);
// For messages so small that a fresh socket takes them whole: false when it did not.
bool write_whole(int fd, const void* data, size_t bytes);

}  // namespace libcomm
