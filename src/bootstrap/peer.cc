#include "src/bootstrap/peer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cstring>

namespace libcomm {
namespace {

struct PeerWire {
  uint16_t version;
  uint16_t host_bytes;
  EndpointWire endpoint;
  int64_t pid;
  uint64_t pid_namespace;
  char host[64];
};
static_assert(sizeof(PeerWire) == 168 && offsetof(PeerWire, pid) == 88);
constexpr uint16_t kPeerVersion = 1;

}  // namespace

Peer Peer::self(const Endpoint& endpoint) {
  Peer peer;
  peer.pid = ::getpid();
  struct stat info;
  if (::stat("/proc/self/ns/pid", &info) == 0) peer.pid_namespace = info.st_ino;
  peer.host = host_name();
  peer.endpoint = endpoint;
  return peer;
}

bool Peer::is_beside(const Peer& other) const {
  const auto address = [](const Peer& peer) {
    return peer.endpoint.empty() ? SocketAddress() : peer.endpoint.front().with_port(0);
  };
  return host == other.host && address(*this) == address(other);
}

std::string Peer::to_string() const {
  return fmt::format("pid {} on host {}, {}", pid, host, libcomm::to_string(endpoint));
}

std::string Peer::encode() const {
  PeerWire wire{};
  wire.version = kPeerVersion;
  wire.endpoint = EndpointWire::from(endpoint);
  wire.pid = pid;
  wire.pid_namespace = pid_namespace;
  const std::string name = host.substr(0, sizeof wire.host);
  wire.host_bytes = static_cast<uint16_t>(name.size());
  std::memcpy(wire.host, name.data(), name.size());
  return std::string(reinterpret_cast<const char*>(&wire), sizeof wire);
}

bool Peer::decode(const std::string& text) {
  PeerWire wire;
  if (text.size() != sizeof wire) return false;
  std::memcpy(&wire, text.data(), sizeof wire);
  if (wire.version != kPeerVersion || wire.host_bytes > sizeof wire.host || wire.pid <= 0 ||
      !wire.endpoint.decode(&endpoint) || endpoint.empty())
    return false;
  pid = wire.pid;
  pid_namespace = wire.pid_namespace;
  host.assign(wire.host, wire.host_bytes);
  for (char& c : host)
    if (!std::isgraph(static_cast<unsigned char>(c))) c = '?';
  return true;
}

}  // namespace libcomm
