#include "src/bootstrap/launcher.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "src/base/log.h"

namespace libcomm {

std::optional<std::string> environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return text;
}

Result<int> number_from(const char* name, const std::string& text, int least) {
  int value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || value < least)
    return error(Code::kInvalidArgument, "{}={} is not a number of at least {}", name, text, least);
  return value;
}

Result<int> environment_number(const char* name, int least, int fallback) {
  const auto text = environment(name);
  if (!text.has_value()) return fallback;
  return number_from(name, *text, least);
}

Status check_rank(const char* rank_name, int rank, const char* nranks_name, int nranks) {
  if (rank < nranks) return Status::ok();
  return error(Code::kInvalidArgument, "{}={} contradicts {}={}: ranks are 0..{}", rank_name, rank,
               nranks_name, nranks, nranks - 1);
}

Result<Rendezvous> solo_rendezvous() {
  Meeting meeting;
  meeting.kind = Meeting::Kind::kAddress;
  COMM_TRY(random_bytes(meeting.key));
  AddressWire discard{};
  discard.family = 4;
  discard.port = 9;
  discard.bytes[0] = 127;
  discard.bytes[3] = 1;
  meeting.endpoint = {discard.decode()};
  COMM_ASSIGN(const UniqueIdBytes id, encode(meeting));
  return Rendezvous{{id}};
}

Result<Rendezvous> derived_rendezvous(const Knobs& knobs, const std::string& host,
                                      std::string_view name, int avoid, std::string_view what) {
  Meeting meeting;
  meeting.kind = Meeting::Kind::kAddress;
  COMM_ASSIGN(meeting.key, address_key(knobs, name));
  COMM_ASSIGN(Endpoint addresses, resolve_host(host, 1, wanted_family(knobs), what));
  std::stable_sort(addresses.begin(), addresses.end(), [](const auto& a, const auto& b) {
    return a.family() == AF_INET && b.family() != AF_INET;
  });
  addresses.resize(std::min<size_t>(addresses.size(), 2));
  // Below the range from which Linux takes ports for outgoing connections.
  constexpr unsigned kFirstPort = 10000, kPorts = 22000;
  const Mac derived =
      hmac(std::span(reinterpret_cast<const unsigned char*>(name.data()), name.size()),
           "libcomm rendezvous ports", {});
  std::vector<uint16_t> ports;
  for (size_t at = 0; ports.size() < kMaxAddresses / addresses.size() && at + 2 <= derived.size();
       at += 2) {
    const auto port =
        static_cast<uint16_t>(kFirstPort + (derived[at] | unsigned{derived[at + 1]} << 8) % kPorts);
    if (port != avoid && std::find(ports.begin(), ports.end(), port) == ports.end())
      ports.push_back(port);
  }
  for (uint16_t port : ports)
    for (const SocketAddress& address : addresses)
      meeting.endpoint.push_back(address.with_port(port));
  COMM_ASSIGN(const UniqueIdBytes id, encode(meeting));
  return Rendezvous{{id}};
}

std::string to_hex(const UniqueIdBytes& id) {
  std::string text;
  for (char c : id) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

Result<UniqueIdBytes> from_hex(std::string_view text, std::string_view who) {
  UniqueIdBytes id;
  if (text.size() != 2 * id.size())
    return error(Code::kSystem, "{} delivered {} characters for the unique id, not {}", who,
                 text.size(), 2 * id.size());
  for (size_t i = 0; i < id.size(); ++i) {
    unsigned value = 0;
    const char* begin = text.data() + 2 * i;
    const auto [end, problem] = std::from_chars(begin, begin + 2, value, 16);
    if (problem != std::errc() || end != begin + 2)
      return error(Code::kSystem, "{} delivered a damaged unique id", who);
    id[i] = static_cast<char>(value);
  }
  return id;
}

LauncherAnswer ask_comm_variables(const Knobs& knobs) {
  const bool rank_set = knobs.get_int(Knob::kRank) >= 0;
  const bool nranks_set = knobs.get_int(Knob::kNranks) >= 0;
  if (!rank_set && !nranks_set) return std::optional<LauncherInfo>();
  LauncherInfo info;
  info.launcher = "comm";
  info.rank = static_cast<int>(knobs.get_int(Knob::kRank));
  info.nranks = static_cast<int>(knobs.get_int(Knob::kNranks));
  info.local_rank = info.local_nranks = -1;
  if (!rank_set || !nranks_set)
    return error(Code::kInvalidArgument, "{}={} is set without {}: set both",
                 rank_set ? "COMM_RANK" : "COMM_NRANKS", rank_set ? info.rank : info.nranks,
                 rank_set ? "COMM_NRANKS" : "COMM_RANK");
  if (info.nranks < 1)
    return error(Code::kInvalidArgument, "COMM_NRANKS={}: at least 1", info.nranks);
  COMM_TRY(check_rank("COMM_RANK", info.rank, "COMM_NRANKS", info.nranks));
  if (info.nranks == 1) {
    COMM_ASSIGN(info.rendezvous, solo_rendezvous());
    return std::optional<LauncherInfo>(std::move(info));
  }
  if (knobs.get_string(Knob::kId).empty())
    return error(
        Code::kInvalidArgument,
        "COMM_RANK={} and COMM_NRANKS={} are set without COMM_ID: set it to host:port of rank 0, "
        "or to file:///path on a shared file system",
        info.rank, info.nranks);
  COMM_ASSIGN(const UniqueIdBytes id, make_unique_id(knobs));
  info.rendezvous.ids.push_back(id);
  return std::optional<LauncherInfo>(std::move(info));
}

namespace {

// Of torchrun's variables only some: most likely a job started by hand, whose ranks would each go
// on alone. One of them by itself is many a program's own.
Status check_incomplete() {
  const auto rank = environment("RANK"), size = environment("WORLD_SIZE");
  const auto host = environment("MASTER_ADDR"), port = environment("MASTER_PORT");
  if (rank.has_value() == size.has_value()) return Status::ok();
  const char* name = rank.has_value() ? "RANK" : "WORLD_SIZE";
  const char* missing = rank.has_value() ? "WORLD_SIZE" : "RANK";
  const std::string& value = rank.has_value() ? *rank : *size;
  if (host.has_value() || port.has_value())
    return error(Code::kInvalidArgument, "{}={} and {} are set without {}: torchrun sets it", name,
                 value, host.has_value() ? "MASTER_ADDR" : "MASTER_PORT", missing);
  if (value != (rank.has_value() ? "0" : "1"))
    log_warn(
        "{}={} is set without {}, so this process is a group of its own: set {}, MASTER_ADDR "
        "and MASTER_PORT too, as torchrun does",
        name, value, missing, missing);
  return Status::ok();
}

}  // namespace

Result<LauncherInfo> join_launcher(const Knobs& knobs) {
  using Ask = LauncherAnswer (*)(const Knobs&);
  std::vector<Ask> order = {ask_comm_variables, ask_pmix, ask_pmi1, ask_torchrun, ask_slurm};
  // An elastic agent that was itself started by mpirun or srun: its workers inherit the outer
  // launcher's variables, all the same ones.
  if (environment("TORCHELASTIC_RUN_ID").has_value())
    order = {ask_comm_variables, ask_torchrun, ask_pmix, ask_pmi1, ask_slurm};
  for (Ask ask : order) {
    COMM_ASSIGN(std::optional<LauncherInfo> info, ask(knobs));
    if (!info.has_value()) continue;
    log_info(Subsys::kInit, "launcher {}: rank {} of {}", info->launcher, info->rank, info->nranks);
    return *std::move(info);
  }
  COMM_TRY(check_incomplete());
  LauncherInfo alone;
  alone.launcher = "none";
  COMM_ASSIGN(alone.rendezvous, solo_rendezvous());
  return alone;
}

}  // namespace libcomm
