// What every rank of a group knows about every other.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "src/bootstrap/address.h"

namespace libcomm {

struct Peer {
  int64_t pid = 0;
  uint64_t pid_namespace = 0;  // inode of /proc/self/ns/pid: a pid means something only inside
  std::string host;
  Endpoint endpoint;

  // This process, listening at `endpoint`.
  static Peer self(const Endpoint& endpoint);
  // On one host and one network, as far as can be told from outside.
  bool is_beside(const Peer& other) const;
  // "pid 1234 on host node7, 10.0.0.7:41234"
  std::string to_string() const;

  std::string encode() const;
  // False when the text is not an encoded peer.
  bool decode(const std::string& text);
};

}  // namespace libcomm
