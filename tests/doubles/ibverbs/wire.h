// The wire between processes: every process binds one Unix socket (SOCK_SEQPACKET) whose name has
// the fabric and the number of the process; packets to it go over one connection, in order. Names
// are abstract, so nothing stays on disk, unless the fabric's name has a slash: then it is a
// folder.
#pragma once

#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/doubles/ibverbs/packet.h"

namespace rdma_double {

class Wire {
 public:
  // Takes a free number; fatal if the fabric has none.
  explicit Wire(const std::string& fabric);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  uint32_t process() const { return process_; }
  // False if the process is not there. What the socket does not take now is sent by work().
  bool send(uint32_t process, const Packet& packet);

  struct Arrivals {
    std::vector<Packet> packets;
    std::vector<uint32_t> broken;  // processes whose connection ended
  };
  // Moves what can be moved without waiting.
  void work(Arrivals* arrivals);

  // Waits until there is something to do, wake() or the time is over; -1: no end. Without the lock.
  void wait(int64_t timeout_ns) const;
  void wake() const;
  // In a forked child: the parent's sockets are closed, its names stay.
  void abandon();

 private:
  struct Connection {
    int fd = -1;
    uint32_t process = 0;  // 0: has not said hello
    std::deque<std::vector<std::byte>> backlog;
  };

  std::string address_of(uint32_t process) const;
  Connection* connection_to(uint32_t process);
  void accept_all();
  bool read_some(Connection& connection, Arrivals* arrivals);
  void flush(Connection& connection);
  void watch(int fd, bool writes, bool add) const;
  void drop(int fd, Arrivals* arrivals);

  std::string fabric_;
  uint32_t process_ = 0;
  int listener_ = -1;
  int epoll_ = -1;
  int wake_ = -1;
  std::unordered_map<int, Connection> connections_;  // by descriptor
  std::unordered_map<uint32_t, int> routes_;         // process -> descriptor
  std::vector<std::byte> buffer_;
};

}  // namespace rdma_double
