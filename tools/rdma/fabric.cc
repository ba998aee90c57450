#include "tools/rdma/fabric.h"

#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "src/base/fd.h"

namespace libcomm {
namespace {

namespace fs = std::filesystem;
using Counters = FabricReadings::Counters;

std::optional<uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// Every file of a folder that holds a number.
Counters numbers_in(const fs::path& folder) {
  Counters counters;
  std::error_code none;
  for (fs::directory_iterator at(folder, none), end; !none && at != end; at.increment(none))
    if (const auto value = number_in(at->path())) counters[at->path().filename().string()] = *value;
  return counters;
}

// Files 0 to 7, each 0 or 1.
std::map<int, bool> by_priority(const fs::path& folder) {
  std::map<int, bool> switches;
  for (int priority = 0; priority < 8; ++priority)
    if (const auto on = number_in(folder / std::to_string(priority))) switches[priority] = *on != 0;
  return switches;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::vector<std::string> priorities(const std::map<int, bool>& switches, bool on) {
  std::vector<std::string> found;
  for (const auto& [priority, is_on] : switches)
    if (is_on == on) found.push_back(std::to_string(priority));
  return found;
}

uint64_t count(const Counters& counters, const char* name) {
  const auto at = counters.find(name);
  return at == counters.end() ? 0 : at->second;
}

// What counters of an RDMA port say when they are not zero.
struct Meaning {
  std::vector<const char*> names;  // one event has different names in different drivers
  const char* text;
};
const std::vector<Meaning>& meanings() {
  static const std::vector<Meaning> all = {
      {{"out_of_sequence", "packet_seq_err", "out_of_seq_request", "rcvd_seq_err",
        "implied_nak_seq_err"},
       "packets were lost or overtook each other, and all that followed was sent again: see that "
       "PFC holds for the priority of COMM_IB_TC on every switch and host, or that ECN does; or "
       "packets of one flow take several paths (adaptive routing)"},
      {{"local_ack_timeout_err", "completer_retry_err"},
       "answers did not come in time: packets are lost, or the peer's host or a switch stands "
       "still; COMM_IB_TIMEOUT says how long is waited"},
      {{"retry_exceeded_err", "req_transport_retries_exceeded"},
       "a peer did not answer at all: see cable, switch, route and the peer's host"},
      {{"rnr_nak_retry_err", "retry_rnr_exceeded_err", "out_of_buffer"},
       "a receiver was not ready: this library never lets that happen, so some other program did"},
      {{"rp_cnp_ignored"},
       "congestion notifications were ignored: ECN is off at this sender for their priority"},
      {{"rx_icrc_encapsulated", "symbol_error", "port_rcv_errors"},
       "packets came damaged: see cable and transceivers"},
      {{"port_xmit_discards"}, "packets were dropped before they left: a port's buffers are full"},
      {{"link_downed"}, "the link went down: see cable and switch"},
  };
  return all;
}

void explain_ecn(const FabricReadings& readings, const std::string& interface, FabricHints* hints) {
  const auto& notifies = readings.notifies;
  const auto& reacts = readings.reacts;
  if (notifies.empty() && reacts.empty()) {  // nor on InfiniBand, where there is none
    hints->seen.push_back("ECN: the driver does not say");
    return;
  }
  const auto of = [](const std::map<int, bool>& switches) {
    const auto on = priorities(switches, true);
    return on.empty() ? std::string("no priority") : "priorities " + joined(on);
  };
  hints->seen.push_back(
      fmt::format("ECN: tells senders for {}, slows down for {}", of(notifies), of(reacts)));
  for (const auto& [priority, on] : notifies) {
    const auto other = reacts.find(priority);
    if (other == reacts.end() || other->second == on) continue;
    hints->wrong.push_back(
        fmt::format("ECN is only half on for priority {}: {}; write 1 to "
                    "/sys/class/net/{}/ecn/roce_{}/enable/{} on every host",
                    priority,
                    on ? "this port tells senders of congestion, but does not slow down itself"
                       : "this port slows down when told, but tells no sender of congestion",
                    interface, on ? "rp" : "np", priority));
  }
  if (priorities(notifies, true).empty() && priorities(reacts, true).empty())
    hints->wrong.push_back(
        fmt::format("ECN is off for all priorities: on a lossy network write 1 to "
                    "/sys/class/net/{0}/ecn/roce_np/enable/P and roce_rp/enable/P for the priority "
                    "P of COMM_IB_TC",
                    interface));
}

void explain_congestion(const Counters& port, FabricHints* hints) {
  const uint64_t marked = count(port, "np_ecn_marked_roce_packets");
  const uint64_t told = count(port, "np_cnp_sent");
  const uint64_t slowed = count(port, "rp_cnp_handled");
  if (marked + told + slowed > 0)
    hints->seen.push_back(
        fmt::format("congestion: {} packets came marked, told senders {} times, slowed down {} "
                    "times",
                    marked, told, slowed));
  if (marked > 0 && told == 0)
    hints->wrong.push_back(
        fmt::format("{} packets came marked as congested, and no sender was told: ECN is off at "
                    "this receiver (ecn/roce_np) for their priority",
                    marked));
}

void explain_counters(const Counters& port, FabricHints* hints) {
  for (const Meaning& meaning : meanings()) {
    std::vector<std::string> found;
    for (const char* name : meaning.names)
      if (const uint64_t value = count(port, name); value > 0)
        found.push_back(fmt::format("{} {}", name, value));
    if (!found.empty()) hints->wrong.push_back(fmt::format("{}: {}", joined(found), meaning.text));
  }
}

void explain_pfc(const FabricReadings& readings, FabricHints* hints) {
  if (!readings.lossless) {
    hints->seen.push_back("PFC: unknown, the driver does not say");
    return;
  }
  std::map<int, bool> switches;
  for (int priority = 0; priority < 8; ++priority)
    switches[priority] = (*readings.lossless >> priority & 1) != 0;
  const std::vector<std::string> lossless = priorities(switches, true);
  if (lossless.empty()) {
    hints->seen.push_back("PFC: off, no priority is lossless");
  } else {
    hints->seen.push_back(
        fmt::format("PFC: on, {} {} lossless; COMM_IB_TC should lead there",
                    (lossless.size() == 1 ? "priority " : "priorities ") + joined(lossless),
                    lossless.size() == 1 ? "is" : "are"));
  }
}

void explain_pauses(const Counters& link, const std::string& interface, FabricHints* hints) {
  uint64_t sent = 0, received = 0, by_priority = 0, of_all = 0;
  bool known = false;
  std::vector<std::string> found;
  for (const auto& [name, value] : link) {
    const auto pause = as_pause_counter(name);
    if (!pause) continue;
    known = true;
    (pause->priority < 0 ? of_all : by_priority) += value;
    (pause->sent ? sent : received) += value;
    if (value > 0) found.push_back(fmt::format("{} {}", name, value));
  }
  if (!known) {
    hints->seen.push_back(interface.empty()
                              ? "pauses: the network device is not known"
                              : fmt::format("pauses: {} does not count them", interface));
    return;
  }
  hints->seen.push_back("pauses: " + (found.empty() ? "none so far" : joined(found)));
  if (sent > 0)
    hints->wrong.push_back(
        fmt::format("{} made the switch pause: this host does not take in packets as fast as they "
                    "come (PCIe width and speed, memory of another NUMA node, relaxed ordering)",
                    interface));
  if (received > 0)
    hints->wrong.push_back(
        fmt::format("{} was made to pause by the switch: there is congestion further on; see ECN, "
                    "and COMM_RDMA_WINDOW for less in flight",
                    interface));
  // Priority counters that stay at zero beside a total: a driver counts the total, too.
  if (of_all > 0 && by_priority == 0)
    hints->wrong.push_back(
        fmt::format("pauses on {} stop all traffic, not one priority: turn them off (`ethtool -A "
                    "{} rx off tx off`) and PFC on",
                    interface, interface));
}

void explain_losses(const Counters& link, const std::string& interface, FabricHints* hints) {
  std::vector<std::string> lost, damaged;
  for (const auto& [name, value] : link) {
    if (value == 0) continue;
    const std::string text = fmt::format("{} {}", name, value);
    if (name == "rx_discards_phy" || name == "rx_missed_errors" || name == "rx_fifo_errors" ||
        (name.starts_with("rx_prio") && name.ends_with("_discards")))
      lost.push_back(text);
    if (name == "rx_crc_errors" || name == "rx_crc_errors_phy" || name == "rx_symbol_err_phy")
      damaged.push_back(text);
  }
  if (!lost.empty())
    hints->wrong.push_back(fmt::format(
        "{}: {} dropped packets for want of buffers: PFC is off for their priority, or the switch "
        "does not heed it",
        joined(lost), interface));
  if (!damaged.empty())
    hints->wrong.push_back(fmt::format("{}: packets came damaged to {}: see cable and transceivers",
                                       joined(damaged), interface));
}

bool ethtool(int fd, const std::string& interface, void* command) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = static_cast<char*>(command);
  return ::ioctl(fd, SIOCETHTOOL, &request) == 0;
}

}  // namespace

Counters driver_counters(const std::string& interface) {
  Counters counters;
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || interface.empty() || interface.size() >= IFNAMSIZ) return counters;
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  if (!ethtool(fd.get(), interface, &info) || info.n_stats == 0) return counters;
  // Each answer is a header with what follows it; the header says how much that is.
  constexpr uint32_t kMost = 1 << 16;
  const uint32_t n = std::min(info.n_stats, kMost);
  std::vector<uint64_t> names_memory((sizeof(ethtool_gstrings) + n * ETH_GSTRING_LEN) / 8 + 1);
  std::vector<uint64_t> values_memory((sizeof(ethtool_stats) + n * sizeof(uint64_t)) / 8 + 1);
  auto* names = reinterpret_cast<ethtool_gstrings*>(names_memory.data());
  names->cmd = ETHTOOL_GSTRINGS;
  names->string_set = ETH_SS_STATS;
  names->len = n;
  auto* values = reinterpret_cast<ethtool_stats*>(values_memory.data());
  values->cmd = ETHTOOL_GSTATS;
  values->n_stats = n;
  if (!ethtool(fd.get(), interface, names) || !ethtool(fd.get(), interface, values))
    return counters;
  for (uint32_t i = 0; i < std::min({n, names->len, values->n_stats}); ++i) {
    const char* name = reinterpret_cast<const char*>(names->data) + size_t{i} * ETH_GSTRING_LEN;
    uint64_t value = 0;
    std::memcpy(&value, reinterpret_cast<const char*>(values->data) + size_t{i} * 8, 8);
    counters[std::string(name, ::strnlen(name, ETH_GSTRING_LEN))] = value;
  }
  return counters;
}

std::optional<PauseCounter> as_pause_counter(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  if (!has("pause") && !has("pfc_ena_frames") && !has("xoff")) return std::nullopt;
  if (has("duration") || has("transition") || has("storm")) return std::nullopt;
  if (name.starts_with("port.")) name.remove_prefix(5);
  if (!name.starts_with("tx") && !name.starts_with("rx")) return std::nullopt;
  PauseCounter pause;
  pause.sent = name.starts_with("tx");
  for (const std::string_view before : {"priority_", "prio", "pri"}) {
    const size_t at = name.find(before);
    if (at == std::string_view::npos) continue;
    const std::string_view rest = name.substr(at + before.size());
    if (rest.empty() || std::isdigit(static_cast<unsigned char>(rest.front())) == 0) continue;
    pause.priority = rest.front() - '0';
    break;
  }
  return pause;
}

FabricReadings read_fabric(const std::string& sysfs, const std::string& device, int port,
                           const std::string& interface) {
  FabricReadings readings;
  const fs::path at =
      fs::path(sysfs) / "class/infiniband" / device / "ports" / std::to_string(port);
  readings.port = numbers_in(at / "counters");
  readings.port.merge(numbers_in(at / "hw_counters"));
  if (interface.empty()) return readings;
  const fs::path net = fs::path(sysfs) / "class/net" / interface;
  readings.notifies = by_priority(net / "ecn/roce_np/enable");
  readings.reacts = by_priority(net / "ecn/roce_rp/enable");
  readings.link = numbers_in(net / "statistics");
  return readings;
}

FabricHints explain_fabric(const FabricReadings& readings, const std::string& interface) {
  FabricHints hints;
  explain_ecn(readings, interface, &hints);
  explain_congestion(readings.port, &hints);
  explain_pfc(readings, &hints);
  explain_pauses(readings.link, interface, &hints);
  explain_counters(readings.port, &hints);
  explain_losses(readings.link, interface, &hints);
  return hints;
}

}  // namespace libcomm
