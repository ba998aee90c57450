// Addresses: where a socket listens, and which of this host's interfaces the library uses.
//
// An Endpoint is what a rank publishes: a few addresses, best first, each with its port. Whoever
// wants to reach the rank tries them in order and believes none before the handshake (handshake.h).
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"

namespace libcomm {

// An IPv4 or IPv6 address with a port. A plain value.
class SocketAddress {
 public:
  SocketAddress() = default;
  // From a kernel sockaddr; an invalid value for other families.
  static SocketAddress from(const sockaddr* address);

  bool valid() const { return family_ != AF_UNSPEC; }
  int family() const { return family_; }
  uint16_t port() const { return port_; }
  SocketAddress with_port(uint16_t port) const;
  // The wildcard address of the same family, with the same port.
  SocketAddress wildcard() const;
  bool is_loopback() const;
  bool is_link_local() const;
  bool operator==(const SocketAddress&) const = default;

  // Fills `storage`; returns its used length.
  socklen_t to_sockaddr(sockaddr_storage* storage) const;
  // "10.0.0.1:4711", "[fd00::2]:4711"; without the port when it is 0.
  std::string to_string() const;

 private:
  friend struct AddressWire;
  int family_ = AF_UNSPEC;
  uint16_t port_ = 0;
  uint32_t scope_ = 0;  // interface index of a link-local IPv6 address; never leaves this host
  std::array<unsigned char, 16> bytes_{};
};

constexpr size_t kMaxAddresses = 4;
using Endpoint = std::vector<SocketAddress>;  // at most kMaxAddresses, best first

std::string to_string(const Endpoint& endpoint);

// An address as it travels: little-endian, no scope.
struct AddressWire {
  uint8_t family;  // 4, 6; 0: none
  uint8_t reserved;
  uint16_t port;
  unsigned char bytes[16];

  static AddressWire from(const SocketAddress& address);
  // An invalid value when the bytes are not an address.
  SocketAddress decode() const;
};
static_assert(sizeof(AddressWire) == 20);

struct EndpointWire {
  uint32_t count;
  AddressWire addresses[kMaxAddresses];

  static EndpointWire from(const Endpoint& endpoint);
  // False when the count or an address is impossible.
  bool decode(Endpoint* endpoint) const;
};
static_assert(sizeof(EndpointWire) == 84);

// An interface with its usable addresses.
struct Interface {
  std::string name;
  std::vector<SocketAddress> addresses;
};

// Interfaces of this host that are up, in the kernel's order, with the addresses of `family`
// (AF_UNSPEC: both, IPv4 first). IPv6 link-local addresses are left out: they mean nothing
// elsewhere.
Result<std::vector<Interface>> list_interfaces(int family);

// COMM_SOCKET_IFNAME's language: a list of name prefixes; a leading '=' makes them exact names, a
// leading '^' excludes what they match. An empty filter takes everything.
bool interface_matches(std::string_view filter, std::string_view name);

// COMM_SOCKET_FAMILY as an AF_ constant.
int wanted_family(const Knobs& knobs);

// The addresses to listen on and to publish, port 0: the interfaces that COMM_SOCKET_IFNAME
// chooses; without it the real ones, else those of containers and bridges, else loopback. At most
// kMaxAddresses, one of every interface before a second one of any.
// kSystem: the filter matches nothing (the text lists what there is), or no interface has an
// address.
Result<Endpoint> local_addresses(const Knobs& knobs);
// The same choice among given interfaces.
Result<Endpoint> choose_addresses(const std::vector<Interface>& interfaces,
                                  std::string_view filter);

// "host:port" or "[v6]:port" to addresses of `family`. `what` names the setting in errors.
// kInvalidArgument: not of that form; kSystem: the name does not resolve.
Result<Endpoint> resolve_host_port(std::string_view text, int family, std::string_view what);
Result<Endpoint> resolve_host(const std::string& host, uint16_t port, int family,
                              std::string_view what);

// This host's name, for messages.
std::string host_name();

}  // namespace libcomm
