#include "src/bootstrap/meet.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <set>

#include "src/base/log.h"
#include "src/bootstrap/dial.h"

namespace libcomm {
namespace {

// How long a port of COMM_ID may be taken (by this job's previous communicator, say).
constexpr double kBindPatience = 5;
// A served id whose port refuses for so long is served by nobody: its server was there before the
// id.
constexpr double kRefusedFor = 5;
// For somebody who listens where this rank 0 was to, and may be another one; and the last time that
// it is asked.
constexpr double kRivalPatience = 1;
constexpr double kLastRivalPatience = 10;

uint32_t to_u32(int value) { return static_cast<uint32_t>(value); }

Status cancelled() { return error(Code::kInvalidUsage, "initialisation was cancelled"); }

void pause(double seconds, const WaitLimits& limits) {
  pollfd nothing[1];
  (void)wait_ready(nothing, limits, Deadline::after(Seconds(seconds)));
}

// Another process was given rank 0 too, and serves this very group at `endpoint`: why the group
// fails then, for all its ranks are told. Ok where nobody is there who knows the key and waits for
// ranks.
Status ask_rival(const Endpoint& endpoint, const Key& key, ReportWire wire,
                 const WaitLimits& limits, double patience = kRivalPatience) {
  const Call call{key, static_cast<uint16_t>(Use::kRoot), 0, 0, 0};
  DialRound round = dial_once(endpoint, call, limits, patience);
  if (!round.fd) return Status::ok();
  wire.stage = kRivalStage;
  const WaitLimits soon{Deadline::after(Seconds(patience)), limits.cancel, limits.alarm};
  const auto answer = report_to_root(std::move(round.fd), wire, soon, nullptr);
  return answer.status().code() == Code::kInvalidUsage && !limits.cancelled() ? answer.status()
                                                                              : Status::ok();
}

// Listens at the first of the endpoint's ports that can be had, on all its addresses with that
// port. `ask`: what to make of somebody who listens there already, and does not leave in time as
// the one before this may.
Result<Listeners> listen_at(const Endpoint& endpoint, const WaitLimits& limits,
                            const std::function<Status(const SocketAddress&, double)>& ask) {
  const Deadline patience = Deadline::after(Seconds(kBindPatience));
  const bool may_move = std::any_of(
      endpoint.begin(), endpoint.end(),
      [&](const SocketAddress& address) { return address.port() != endpoint.front().port(); });
  for (;;) {
    Status last;
    const bool is_last = patience.passed() || limits.deadline.passed();
    std::set<uint16_t> tried;
    for (const SocketAddress& first : endpoint) {
      if (!tried.insert(first.port()).second) continue;
      Listeners listeners;
      for (const SocketAddress& address : endpoint) {
        if (address.port() != first.port()) continue;
        SocketAddress bound;
        int refused = 0;
        auto fd = listen_on(address, &bound, &refused);
        // The name may stand for this host without being an address of it (a container's service
        // name).
        if (!fd && refused == EADDRNOTAVAIL) fd = listen_on(address.wildcard(), &bound, &refused);
        if (!fd) {
          last = fd.status();
          // One of ours may have it for all addresses.
          const bool is_ours = std::any_of(
              listeners.endpoint.begin(), listeners.endpoint.end(),
              [&](const SocketAddress& own) { return own.family() == address.family(); });
          if (refused == EADDRINUSE && !is_ours && (may_move || is_last))
            COMM_TRY(ask(address, is_last ? kLastRivalPatience : kRivalPatience));
          continue;
        }
        listeners.fds.push_back(*std::move(fd));
        listeners.endpoint.push_back(bound);
      }
      if (!listeners.fds.empty()) return listeners;
    }
    if (limits.cancelled()) return cancelled();
    if (is_last)
      return std::move(last).context(
          "rank 0 cannot serve the rendezvous (choose a free port of rank 0's host in COMM_ID)");
    pause(0.05, limits);
  }
}

// How this process reaches its own listeners.
Endpoint own_view(const Endpoint& bound) {
  Endpoint endpoint;
  for (const SocketAddress& address : bound) {
    if (address != address.wildcard()) {
      endpoint.push_back(address);
      continue;
    }
    sockaddr_storage loopback{};
    if (address.family() == AF_INET) {
      sockaddr_in in{};
      in.sin_family = AF_INET;
      in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      std::memcpy(&loopback, &in, sizeof in);
    } else {
      sockaddr_in6 in6{};
      in6.sin6_family = AF_INET6;
      in6.sin6_addr = in6addr_loopback;
      std::memcpy(&loopback, &in6, sizeof in6);
    }
    endpoint.push_back(
        SocketAddress::from(reinterpret_cast<sockaddr*>(&loopback)).with_port(address.port()));
  }
  return endpoint;
}

// Reports to the root that `meeting` leads to. `outdated`: as for report_to_root().
Result<Answer> report(const Meeting& meeting, int rank, const ReportWire& wire,
                      const WaitLimits& limits, const std::function<bool()>& outdated = nullptr) {
  const Call call{meeting.key, static_cast<uint16_t>(Use::kRoot), to_u32(rank), 0, 0};
  const bool served = meeting.kind == Meeting::Kind::kServed;
  DialPolicy policy;
  policy.refused_for = served ? kRefusedFor : 0;
  const std::string who =
      fmt::format("the server of the {} at {}", served ? "unique id" : "rendezvous",
                  to_string(meeting.endpoint));
  auto fd = dial(meeting.endpoint, call, limits, policy, who);
  if (!fd) {
    if (limits.cancelled()) return cancelled();
    if (fd.status().message().find("ulimit") != std::string::npos) return std::move(fd).status();
    if (served)
      if (auto why = failure_of_root_here(meeting.key)) return *std::move(why);
    const std::string reason = fd.status().message();
    if (fd.status().code() == Code::kRemote)
      return error(
          Code::kSystem,
          "{}; the process that called commGetUniqueId must stay until all ranks have joined, "
          "and an id serves one group of the given nranks only",
          reason);
    if (reason.find("secret") != std::string::npos)
      return error(Code::kSystem, "{}; use one id, and one COMM_SECRET, on all ranks", reason);
    return error(Code::kSystem,
                 "{}; is rank 0 running there, and can this host reach it (COMM_SOCKET_IFNAME, "
                 "COMM_SOCKET_FAMILY, firewall)?",
                 reason);
  }
  auto answer = report_to_root(*std::move(fd), wire, limits, outdated);
  if (!answer && limits.cancelled()) return cancelled();
  return answer;
}

// ---- Rendezvous by file ---------------------------------------------------------------------

// The id in the file; nothing when there is none (yet), and then `why` says more. Only a file that
// nobody else can have written or read is believed: it holds the key.
std::optional<UniqueIdBytes> read_id_file(const std::string& path, std::string* why) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat info;
  if (!fd || ::fstat(fd.get(), &info) != 0) {
    *why = errno == ENOENT ? "the file is not there" : system_error(errno, "open").message();
    return std::nullopt;
  }
  const bool ours = info.st_uid == ::geteuid() || info.st_uid == 0;
  if (!S_ISREG(info.st_mode) || !ours || (info.st_mode & 077) != 0) {
    *why = fmt::format(
        "the file belongs to user {} and has mode {:04o}, but must be a regular file of user {} "
        "(or root) that nobody else may read or write: remove it",
        info.st_uid, static_cast<unsigned>(info.st_mode & 07777), ::geteuid());
    return std::nullopt;
  }
  UniqueIdBytes id;
  if (::read(fd.get(), id.data(), id.size()) != static_cast<ssize_t>(id.size())) {
    *why = "the file holds no unique id";
    return std::nullopt;
  }
  return id;
}

// What the ranks that meet by file prove to each other: who has read the file, but does not know
// the job's secret, stays out.
Result<Key> key_with_secret(const Key& in_file, const Knobs& knobs) {
  COMM_ASSIGN(const std::string secret, configured_secret(knobs));
  if (secret.empty()) return in_file;
  const std::span bytes(reinterpret_cast<const unsigned char*>(secret.data()), secret.size());
  return hmac(bytes, "libcomm rendezvous by file", {in_file});
}

// The file appears whole or not at all, readable by its owner only: it holds the group's key.
Status write_id_file(const std::string& path, const UniqueIdBytes& id) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  (void)::unlink(temporary.c_str());
  UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  const bool written = fd &&
                       ::write(fd.get(), id.data(), id.size()) == static_cast<ssize_t>(id.size()) &&
                       ::fsync(fd.get()) == 0 && ::rename(temporary.c_str(), path.c_str()) == 0;
  if (written) return Status::ok();
  const int err = errno;
  (void)::unlink(temporary.c_str());
  return system_error(err, fmt::format("COMM_ID=file://{}: rank 0 cannot write the file", path));
}

// ask_rival() of whoever the file leads to, unless that is `own`.
Status ask_rival_in_file(const std::string& path, const UniqueIdBytes* own, const ReportWire& wire,
                         const Knobs& knobs, const WaitLimits& limits) {
  std::string why;
  const std::optional<UniqueIdBytes> id = read_id_file(path, &why);
  if (!id.has_value() || (own != nullptr && *id == *own)) return Status::ok();
  const auto served = decode(*id);
  if (!served || served->kind != Meeting::Kind::kServed) return Status::ok();
  COMM_ASSIGN(const Key key, key_with_secret(served->key, knobs));
  return ask_rival(served->endpoint, key, wire, limits);
}

// `key` receives what the ranks prove to each other.
Result<Answer> report_by_file(const std::string& path, int rank, const ReportWire& wire,
                              const Knobs& knobs, const WaitLimits& limits, Key* key) {
  if (rank == 0) {
    COMM_ASSIGN(const Endpoint addresses, local_addresses(knobs));
    COMM_ASSIGN(Listeners listeners, Listeners::open(addresses));
    Meeting served;
    served.endpoint = listeners.endpoint;
    COMM_TRY(random_bytes(served.key));
    COMM_ASSIGN(const UniqueIdBytes id, encode(served));
    COMM_ASSIGN(*key, key_with_secret(served.key, knobs));
    served.key = *key;
    COMM_TRY(ask_rival_in_file(path, nullptr, wire, knobs, limits));
    COMM_TRY(
        serve_root(std::move(listeners), served.key, knobs.get_seconds(Knob::kBootstrapTimeout)));
    COMM_TRY(write_id_file(path, id));
    Status rival;  // that has written the file since
    const auto replaced = [&] {
      rival = ask_rival_in_file(path, &id, wire, knobs, limits);
      return !rival;
    };
    auto answer = report(served, rank, wire, limits, replaced);
    if (!rival) return rival;
    std::string why;
    if (read_id_file(path, &why) == id) (void)::unlink(path.c_str());
    return answer;
  }
  // The file is looked at before the time: what is wrong with it can always be told.
  std::string last;
  for (bool first = true;; first = false) {
    if (!first) pause(0.02, limits);
    if (limits.cancelled()) return cancelled();
    if (!first && limits.deadline.passed())
      return error(
          Code::kSystem,
          "COMM_ID=file://{}: rank 0 has not published where to meet ({}); is it running, and "
          "does it see the same file?",
          path, last);
    const std::optional<UniqueIdBytes> id = read_id_file(path, &last);
    if (!id.has_value()) continue;
    const auto served = decode(*id);
    if (!served || served->kind != Meeting::Kind::kServed) {
      last = "the file holds no unique id";
      continue;
    }
    // The file may be an earlier job's: whoever is not served there reads it again.
    COMM_ASSIGN(*key, key_with_secret(served->key, knobs));
    const Call call{*key, static_cast<uint16_t>(Use::kRoot), to_u32(rank), 0, 0};
    DialRound round = dial_once(served->endpoint, call, limits, 2);
    if (!round.shortage) return std::move(round.shortage);
    if (!round.fd) {
      last = round.reasons;
      continue;
    }
    const auto outdated = [&] {
      std::string why;
      const auto now = read_id_file(path, &why);
      return now.has_value() && *now != *id;
    };
    auto answer = report_to_root(std::move(round.fd), wire, limits, outdated);
    if (answer || limits.cancelled()) return answer;
    if (answer.status().code() != Code::kInProgress && !outdated()) return answer;
    last = "the file was replaced";
  }
}

// Report to the root of this rank's part, and find the place there. `key`: what its ranks prove.
Result<Answer> report_member(const Meeting& meeting, int rank, const ReportWire& wire,
                             const Knobs& knobs, const WaitLimits& limits, Key* key) {
  if (meeting.kind == Meeting::Kind::kFile)
    return report_by_file(meeting.file, rank, wire, knobs, limits, key);
  *key = meeting.key;
  if (meeting.kind == Meeting::Kind::kServed || rank != 0)
    return report(meeting, rank, wire, limits);
  const auto ask = [&](const SocketAddress& address, double patience) {
    return ask_rival({address}, meeting.key, wire, limits, patience);
  };
  COMM_ASSIGN(Listeners listeners, listen_at(meeting.endpoint, limits, ask));
  Meeting here = meeting;
  here.endpoint = own_view(listeners.endpoint);
  COMM_TRY(
      serve_root(std::move(listeners), here.key, knobs.get_seconds(Knob::kBootstrapTimeout), true));
  return report(here, rank, wire, limits);
}

// One id's key is what its ranks proved; of several, all are in the ids.
Key group_key(const Meetings& meetings, const Key& own, int nranks) {
  const Meeting& first = meetings.all.front();
  const std::span file(reinterpret_cast<const unsigned char*>(first.file.data()),
                       first.file.size());
  std::vector<unsigned char> keys;
  for (const Meeting& meeting : meetings.all) {
    const Key& key = meetings.all.size() == 1 ? own : meeting.key;
    keys.insert(keys.end(), key.begin(), key.end());
  }
  const uint32_t size = to_u32(nranks);
  return hmac(keys, "libcomm group key",
              {std::span(reinterpret_cast<const unsigned char*>(&size), sizeof size), file});
}

}  // namespace

Result<Meetings> Meetings::decode(const Rendezvous& rendezvous, int nranks) {
  Meetings meetings;
  if (rendezvous.ids.empty()) return error(Code::kInvalidArgument, "no unique id was given");
  std::vector<UniqueIdBytes> ids = rendezvous.ids;
  // With COMM_ID set every id is the same one.
  if (std::all_of(ids.begin(), ids.end(), [&](const auto& id) { return id == ids.front(); }))
    ids.resize(1);
  if (ids.size() > static_cast<size_t>(nranks))
    return error(Code::kInvalidArgument, "{} unique ids for {} ranks: give at most one per rank",
                 ids.size(), nranks);
  for (const UniqueIdBytes& id : ids) {
    COMM_ASSIGN(Meeting meeting, libcomm::decode(id));
    if (ids.size() > 1 && meeting.kind != Meeting::Kind::kServed)
      return error(Code::kInvalidArgument,
                   "several unique ids, and one of them stands for COMM_ID: unset "
                   "COMM_ID where ids are made, or give one id");
    meetings.all.push_back(std::move(meeting));
  }
  if (std::any_of(ids.begin() + 1, ids.end(), [&](const auto& id) { return id == ids.front(); }))
    return error(Code::kInvalidArgument, "a unique id is given twice");
  return meetings;
}

Result<Place> meet(const Meetings& meetings, int rank, int nranks, const Endpoint& endpoint,
                   const Knobs& knobs, const WaitLimits& limits) {
  const uint32_t size = to_u32(nranks), self = to_u32(rank);
  const uint32_t nparts = to_u32(static_cast<int>(meetings.all.size()));
  const uint32_t part = part_of(self, size, nparts);
  const uint32_t begin = part_begin(part, size, nparts);
  const uint32_t end = part_begin(part + 1, size, nparts);
  ReportWire wire{};
  wire.nranks = size;
  wire.part = part;
  wire.nparts = nparts;
  wire.endpoint = EndpointWire::from(endpoint);

  Place place;
  Key own_key{};
  COMM_ASSIGN(place.parent, report_member(meetings.all[part], rank, wire, knobs, limits, &own_key));
  place.group_key = group_key(meetings, own_key, nranks);
  place.roots.push_back(std::move(place.parent.root));
  const uint32_t index = self - begin;
  uint32_t expected = index == 0 ? kNoRank : begin + (index - 1) / 2;
  for (uint32_t child : {2 * index + 1, 2 * index + 2})
    if (begin + child < end) place.children.push_back(static_cast<int>(begin + child));
  if (index == 0 && nparts > 1) {
    wire.part = 0;
    wire.stage = 1;
    COMM_ASSIGN(place.parent, report(meetings.all[0], rank, wire, limits));
    place.roots.push_back(std::move(place.parent.root));
    expected = part == 0 ? kNoRank : part_begin((part - 1) / 2, size, nparts);
    for (uint32_t child : {2 * part + 1, 2 * part + 2})
      if (child < nparts)
        place.children.push_back(static_cast<int>(part_begin(child, size, nparts)));
  }
  if (place.parent.parent != expected)
    return error(Code::kInternal, "the rendezvous placed rank {} wrongly", rank);
  return place;
}

}  // namespace libcomm
