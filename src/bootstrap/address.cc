#include "src/bootstrap/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "src/base/fd.h"

namespace libcomm {

static_assert(std::endian::native == std::endian::little,
              "the wire structs are written as they lie in memory");

SocketAddress SocketAddress::from(const sockaddr* address) {
  SocketAddress result;
  if (address == nullptr) return result;
  if (address->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    result.family_ = AF_INET;
    result.port_ = ntohs(in.sin_port);
    std::memcpy(result.bytes_.data(), &in.sin_addr, 4);
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 in6;
    std::memcpy(&in6, address, sizeof in6);
    result.family_ = AF_INET6;
    result.port_ = ntohs(in6.sin6_port);
    result.scope_ = in6.sin6_scope_id;
    std::memcpy(result.bytes_.data(), &in6.sin6_addr, 16);
  }
  return result;
}

SocketAddress SocketAddress::with_port(uint16_t port) const {
  SocketAddress copy = *this;
  copy.port_ = port;
  return copy;
}

SocketAddress SocketAddress::wildcard() const {
  SocketAddress any;
  any.family_ = family_;
  any.port_ = port_;
  return any;
}

bool SocketAddress::is_loopback() const {
  if (family_ == AF_INET) return bytes_[0] == 127;
  in6_addr address;
  std::memcpy(&address, bytes_.data(), 16);
  return family_ == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&address);
}

bool SocketAddress::is_link_local() const {
  return family_ == AF_INET6 && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

socklen_t SocketAddress::to_sockaddr(sockaddr_storage* storage) const {
  std::memset(storage, 0, sizeof *storage);
  if (family_ == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port_);
    std::memcpy(&in.sin_addr, bytes_.data(), 4);
    std::memcpy(storage, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port_);
  in6.sin6_scope_id = scope_;
  std::memcpy(&in6.sin6_addr, bytes_.data(), 16);
  std::memcpy(storage, &in6, sizeof in6);
  return sizeof in6;
}

std::string SocketAddress::to_string() const {
  if (!valid()) return "no address";
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family_, bytes_.data(), text, sizeof text);
  if (port_ == 0) return text;
  return family_ == AF_INET6 ? fmt::format("[{}]:{}", text, port_)
                             : fmt::format("{}:{}", text, port_);
}

std::string to_string(const Endpoint& endpoint) {
  std::string text;
  for (const SocketAddress& address : endpoint) {
    if (!text.empty()) text += ", ";
    text += address.to_string();
  }
  return text;
}

AddressWire AddressWire::from(const SocketAddress& address) {
  AddressWire wire{};
  wire.family = address.family_ == AF_INET ? 4 : address.family_ == AF_INET6 ? 6 : 0;
  wire.port = address.port_;
  std::memcpy(wire.bytes, address.bytes_.data(), 16);
  return wire;
}

SocketAddress AddressWire::decode() const {
  SocketAddress address;
  if ((family != 4 && family != 6) || port == 0 || reserved != 0) return address;
  address.family_ = family == 4 ? AF_INET : AF_INET6;
  address.port_ = port;
  std::memcpy(address.bytes_.data(), bytes, family == 4 ? 4 : 16);
  return address;
}

EndpointWire EndpointWire::from(const Endpoint& endpoint) {
  EndpointWire wire{};
  for (const SocketAddress& address : endpoint) {
    if (wire.count == kMaxAddresses) break;
    wire.addresses[wire.count++] = AddressWire::from(address);
  }
  return wire;
}

bool EndpointWire::decode(Endpoint* endpoint) const {
  endpoint->clear();
  if (count > kMaxAddresses) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const SocketAddress address = addresses[i].decode();
    if (!address.valid()) return false;
    endpoint->push_back(address);
  }
  return true;
}

Result<std::vector<Interface>> list_interfaces(int family) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return descriptor_error(errno, "cannot list the network interfaces");
  std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  std::vector<Interface> interfaces;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if ((entry->ifa_flags & IFF_UP) == 0 || entry->ifa_addr == nullptr) continue;
    const SocketAddress address = SocketAddress::from(entry->ifa_addr).with_port(0);
    if (!address.valid() || address.is_link_local()) continue;
    if (family != AF_UNSPEC && address.family() != family) continue;
    auto at = std::find_if(interfaces.begin(), interfaces.end(),
                           [&](const Interface& i) { return i.name == entry->ifa_name; });
    if (at == interfaces.end()) at = interfaces.insert(at, Interface{entry->ifa_name, {}});
    at->addresses.push_back(address);
  }
  for (Interface& interface : interfaces)
    std::stable_sort(interface.addresses.begin(), interface.addresses.end(),
                     [](const auto& a, const auto& b) {
                       return a.family() == AF_INET && b.family() != AF_INET;
                     });
  return interfaces;
}

bool interface_matches(std::string_view filter, std::string_view name) {
  bool exclude = false, exact = false;
  while (!filter.empty() && (filter.front() == '^' || filter.front() == '=')) {
    (filter.front() == '^' ? exclude : exact) = true;
    filter.remove_prefix(1);
  }
  if (filter.empty()) return true;
  bool listed = false;
  while (!filter.empty()) {
    const size_t comma = filter.find(',');
    const std::string_view item = filter.substr(0, comma);
    filter = comma == std::string_view::npos ? std::string_view() : filter.substr(comma + 1);
    if (!item.empty() && (exact ? name == item : name.starts_with(item))) listed = true;
  }
  return listed != exclude;
}

int wanted_family(const Knobs& knobs) {
  constexpr int kFamilies[] = {AF_UNSPEC, AF_INET, AF_INET6};  // in the order of the knob's row
  return kFamilies[knobs.get_choice(Knob::kSocketFamily)];
}

namespace {

// 0: a real interface; 1: made by containers and virtual machines; 2: loopback.
int interface_class(const Interface& interface) {
  if (interface.name.starts_with("lo") && interface.addresses.front().is_loopback()) return 2;
  for (std::string_view prefix : {"docker", "virbr", "br-", "cni", "flannel", "podman"})
    if (interface.name.starts_with(prefix)) return 1;
  return 0;
}

}  // namespace

Result<Endpoint> choose_addresses(const std::vector<Interface>& interfaces,
                                  std::string_view filter) {
  std::vector<const Interface*> chosen;
  std::string names;
  int best = 2;
  for (const Interface& interface : interfaces) {
    names += (names.empty() ? "" : ", ") + interface.name;
    if (!interface_matches(filter, interface.name)) continue;
    chosen.push_back(&interface);
    best = std::min(best, interface_class(interface));
  }
  if (names.empty()) names = "(no interface is up with an address of COMM_SOCKET_FAMILY)";
  if (chosen.empty() && !filter.empty())
    return error(
        Code::kSystem,
        "COMM_SOCKET_IFNAME={} matches none of: {}; set it to the start of one of these names "
        "(=name for exactly this one, ^name for all others), or unset it",
        filter, names);
  if (chosen.empty())
    return error(Code::kSystem,
                 "no network interface to use: {}; bring one up (lo is enough on one "
                 "host) or change COMM_SOCKET_FAMILY",
                 names);
  if (filter.empty())
    std::erase_if(chosen, [&](const Interface* i) { return interface_class(*i) != best; });
  Endpoint endpoint;
  for (size_t turn = 0; endpoint.size() < kMaxAddresses; ++turn) {
    bool any = false;
    for (const Interface* interface : chosen) {
      if (turn >= interface->addresses.size() || endpoint.size() >= kMaxAddresses) continue;
      endpoint.push_back(interface->addresses[turn]);
      any = true;
    }
    if (!any) break;
  }
  return endpoint;
}

Result<Endpoint> local_addresses(const Knobs& knobs) {
  COMM_ASSIGN(const auto interfaces, list_interfaces(wanted_family(knobs)));
  return choose_addresses(interfaces, knobs.get_string(Knob::kSocketIfname));
}

Result<Endpoint> resolve_host(const std::string& host, uint16_t port, int family,
                              std::string_view what) {
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int failed = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (failed != 0)
    return error(Code::kSystem, "{}: cannot find the address of host '{}': {}", what, host,
                 gai_strerror(failed));
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, &freeaddrinfo);
  Endpoint endpoint;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    const SocketAddress address = SocketAddress::from(entry->ai_addr).with_port(port);
    if (!address.valid() || endpoint.size() == kMaxAddresses) continue;
    if (std::find(endpoint.begin(), endpoint.end(), address) == endpoint.end())
      endpoint.push_back(address);
  }
  if (endpoint.empty())
    return error(Code::kSystem, "{}: host '{}' has no usable address", what, host);
  return endpoint;
}

Result<Endpoint> resolve_host_port(std::string_view text, int family, std::string_view what) {
  const auto malformed = [&] {
    return error(Code::kInvalidArgument,
                 "{}={} is not host:port or [v6 address]:port (port 1..65535)", what, text);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return malformed();
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  unsigned port = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (problem != std::errc() || end != digits.data() + digits.size() || port == 0 || port > 65535)
    return malformed();
  if (host.front() == '[') {
    if (host.back() != ']' || host.size() < 3) return malformed();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return malformed();
  }
  return resolve_host(std::string(host), static_cast<uint16_t>(port), family, what);
}

std::string host_name() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0) return "unknown";
  return name;
}

}  // namespace libcomm
