// Hosts for a test: network namespaces joined by a switch (a bridge in a namespace of its own).
//
// Each namespace is held by a child that does nothing else and dies with the test, however the test
// ends. The namespaces have no names, so the kernel takes them, their cables and the bridge down
// with the holders, and nothing is left behind or found by another test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace libcomm::test {

// One end of a cable. `network` counts from 0: a host has one cable to each.
struct Wire {
  int host;
  int network;
};

class Network {
 public:
  // What the hosts have as addresses: v4 10.(70+network).0.(host+1), v6
  // fd00:(70+network)::(host+1).
  enum class Family { kV4, kV6 };

  // Hosts with a cable to each of `networks` switches. The interface of network 0 is eth0, of 1
  // eth1; lower ones have lower indexes, so the library meets them first.
  explicit Network(int hosts, Family family = Family::kV4, int networks = 1);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Why there is no network, or empty. A test skips with this text.
  const std::string& problem() const { return problem_; }

  std::string address(Wire wire) const;
  // host:port as COMM_ID wants it.
  std::string endpoint(Wire wire, int port) const;

  // Bytes that the host has sent, and got, over one of its interfaces since it was made.
  uint64_t sent(Wire wire) const;
  uint64_t received(Wire wire) const;

  // The interface stays up with its address, and every packet is lost without a word: the switch
  // loses the port from its bridge, and the neighbours are known, so that nobody asks for them.
  void make_dead(int network);
  // The switch's end goes down.
  void cut(Wire wire);
  // The interface itself is gone, with its address.
  void remove(Wire wire);

  // Starts a program on a host with variables added to an environment without COMM_ variables;
  // stdout and stderr go to the file `output`. Dies with the test.
  pid_t start(int host, const std::vector<std::string>& command,
              const std::vector<std::string>& variables, const std::string& output) const;

 private:
  void ip(pid_t where, const std::string& arguments);
  uint64_t counter(Wire wire, int column) const;
  std::string interface(Wire wire) const { return "eth" + std::to_string(wire.network); }
  std::string port(Wire wire) const;

  Family family_;
  int hosts_;
  std::vector<pid_t> holders_;  // host 0, 1, ..., then the switch
  std::string problem_;
};

}  // namespace libcomm::test
