#include "src/bootstrap/unique_id.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "src/base/fd.h"
#include "src/base/log.h"

namespace libcomm {
namespace {

constexpr uint32_t kIdMagic = 0x64694d43;  // "CMid"
constexpr uint16_t kIdVersion = 1;

struct IdWire {
  uint32_t magic;
  uint16_t version;
  uint8_t kind;
  uint8_t count;  // addresses
  // kServed, kAddress: key, addresses. kFile: the path, ended by zeros.
  unsigned char body[112];
  unsigned char check[8];  // over all before it: tells an id from garbage, not from a forgery
};
static_assert(sizeof(IdWire) == sizeof(UniqueIdBytes));
static_assert(sizeof(Key) + kMaxAddresses * sizeof(AddressWire) == 112);

void checksum(const IdWire& wire, unsigned char out[8]) {
  const Key zero{};
  const Mac mac = hmac(zero, "libcomm unique id",
                       {{reinterpret_cast<const unsigned char*>(&wire), offsetof(IdWire, check)}});
  std::memcpy(out, mac.data(), 8);
}

Status not_an_id(const char* why) {
  return error(
      Code::kInvalidArgument,
      "the unique id is not one made by commGetUniqueId ({}): send all 128 bytes to every rank",
      why);
}

}  // namespace

Result<UniqueIdBytes> encode(const Meeting& meeting) {
  IdWire wire{};
  wire.magic = kIdMagic;
  wire.version = kIdVersion;
  wire.kind = static_cast<uint8_t>(meeting.kind);
  if (meeting.kind == Meeting::Kind::kFile) {
    if (meeting.file.size() >= sizeof wire.body)
      return error(Code::kInvalidArgument,
                   "COMM_ID=file://{}: the path has {} bytes, at most {} fit in an id",
                   meeting.file, meeting.file.size(), sizeof wire.body - 1);
    std::memcpy(wire.body, meeting.file.data(), meeting.file.size());
  } else {
    std::memcpy(wire.body, meeting.key.data(), meeting.key.size());
    for (const SocketAddress& address : meeting.endpoint) {
      if (wire.count == kMaxAddresses) break;
      const AddressWire encoded = AddressWire::from(address);
      std::memcpy(wire.body + sizeof(Key) + wire.count * sizeof encoded, &encoded, sizeof encoded);
      ++wire.count;
    }
  }
  checksum(wire, wire.check);
  UniqueIdBytes id;
  std::memcpy(id.data(), &wire, sizeof wire);
  return id;
}

Result<Meeting> decode(const UniqueIdBytes& id) {
  IdWire wire;
  std::memcpy(&wire, id.data(), sizeof wire);
  if (wire.magic != kIdMagic) return not_an_id("wrong first bytes");
  unsigned char check[8];
  checksum(wire, check);
  if (std::memcmp(check, wire.check, sizeof check) != 0) return not_an_id("wrong checksum");
  if (wire.version != kIdVersion)
    return error(
        Code::kInvalidArgument,
        "the unique id has format {}, this library reads {}: all ranks need the same libcomm",
        wire.version, kIdVersion);
  Meeting meeting;
  meeting.kind = static_cast<Meeting::Kind>(wire.kind);
  switch (meeting.kind) {
    case Meeting::Kind::kFile: {
      const char* path = reinterpret_cast<const char*>(wire.body);
      meeting.file.assign(path, strnlen(path, sizeof wire.body));
      if (meeting.file.empty() || meeting.file.front() != '/' ||
          meeting.file.size() == sizeof wire.body)
        return not_an_id("bad path");
      return meeting;
    }
    case Meeting::Kind::kServed:
    case Meeting::Kind::kAddress: {
      if (wire.count == 0 || wire.count > kMaxAddresses)
        return not_an_id("bad number of addresses");
      std::memcpy(meeting.key.data(), wire.body, sizeof(Key));
      for (size_t i = 0; i < wire.count; ++i) {
        AddressWire encoded;
        std::memcpy(&encoded, wire.body + sizeof(Key) + i * sizeof encoded, sizeof encoded);
        meeting.endpoint.push_back(encoded.decode());
        if (!meeting.endpoint.back().valid()) return not_an_id("bad address");
      }
      return meeting;
    }
  }
  return not_an_id("unknown kind");
}

Result<std::string> configured_secret(const Knobs& knobs) {
  const std::string& secret = knobs.get_string(Knob::kSecret);
  const std::string& path = knobs.get_string(Knob::kSecretFile);
  if (path.empty()) return secret;
  if (!secret.empty())
    return error(Code::kInvalidArgument,
                 "COMM_SECRET and COMM_SECRET_FILE={} are both set: unset one", path);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info;
  if (!fd || ::fstat(fd.get(), &info) != 0)
    return system_error(errno, fmt::format("cannot read COMM_SECRET_FILE={}", path));
  if (!S_ISREG(info.st_mode))
    return error(Code::kInvalidArgument, "COMM_SECRET_FILE={} is not a regular file", path);
  if ((info.st_mode & 077) != 0)
    return error(Code::kInvalidArgument,
                 "COMM_SECRET_FILE={} has mode {:04o}, so others can read it: chmod 600 {}", path,
                 static_cast<unsigned>(info.st_mode & 07777), path);
  char buffer[4096];
  const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
  if (got < 0) return system_error(errno, fmt::format("cannot read COMM_SECRET_FILE={}", path));
  std::string text(buffer, static_cast<size_t>(got));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (text.empty()) return error(Code::kInvalidArgument, "COMM_SECRET_FILE={} is empty", path);
  return text;
}

Result<Key> address_key(const Knobs& knobs, std::string_view address) {
  COMM_ASSIGN(const std::string secret, configured_secret(knobs));
  const auto bytes = [](std::string_view text) {
    return std::span(reinterpret_cast<const unsigned char*>(text.data()), text.size());
  };
  if (!secret.empty()) return hmac(bytes(secret), "libcomm rendezvous secret", {bytes(address)});
  static std::once_flag warned;
  std::call_once(warned, [&] {
    log_warn(
        "rendezvous at {} without a secret: anyone who reaches that address can join the group; "
        "set "
        "COMM_SECRET or COMM_SECRET_FILE to the same value on all ranks",
        address);
  });
  const Key zero{};
  return hmac(zero, "libcomm rendezvous without secret", {bytes(address)});
}

Result<Meeting> meeting_of(const Knobs& knobs, const std::string& text, std::string_view what) {
  Meeting meeting;
  if (text.starts_with("file://")) {
    meeting.kind = Meeting::Kind::kFile;
    meeting.file = text.substr(7);
    if (meeting.file.empty() || meeting.file.front() != '/')
      return error(Code::kInvalidArgument,
                   "{}={}: give an absolute path, as in file:///shared/job.id", what, text);
    return meeting;
  }
  meeting.kind = Meeting::Kind::kAddress;
  COMM_ASSIGN(meeting.endpoint, resolve_host_port(text, wanted_family(knobs), what));
  COMM_ASSIGN(meeting.key, address_key(knobs, text));
  return meeting;
}

}  // namespace libcomm
