#include "tools/rdma/host_report.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "tools/rdma/fabric.h"
#include "tools/rdma/pfc.h"
#include "transports/rdma/ports.h"
#include "transports/rdma/verbs.h"

namespace libcomm {
namespace {

constexpr const char* kDevices = "/dev/infiniband";
constexpr rlim_t kPinnedPerPeer = 4 << 20;  // docs/rdma.md, "Memory"

class Lines {
 public:
  explicit Lines(HostReport* report) : report_(report) {}
  void say(std::string_view name, const std::string& text) {
    report_->text += fmt::format("  {:<12} {}\n", name, text);
  }
  void complain(const std::string& text) { report_->complaints += fmt::format("  {}\n", text); }

 private:
  HostReport* const report_;
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Names in a folder, sorted; none when it cannot be read.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* open = ::opendir(folder.c_str());
  if (open == nullptr) return names;
  while (const dirent* entry = ::readdir(open))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  ::closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

void report_permission(Lines* lines) {
  std::string good;
  for (const std::string& name : names_in(kDevices)) {
    if (!name.starts_with("uverbs")) continue;
    const std::string path = fmt::format("{}/{}", kDevices, name);
    if (::access(path.c_str(), R_OK | W_OK) == 0) {
      good += (good.empty() ? "" : ", ") + path;
      continue;
    }
    lines->complain(fmt::format(
        "no permission on {} ({}): add user {} to the group that owns it, or mode 0666 by udev; "
        "in a container pass the device",
        path, std::strerror(errno), ::geteuid()));
  }
  lines->say("devices", !good.empty() ? good + ": may be used"
                                      : fmt::format("no {}/uverbs* that may be used", kDevices));
}

void report_memlock(Lines* lines) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  if (limit.rlim_cur == RLIM_INFINITY) return lines->say("memlock", "unlimited");
  lines->say("memlock", fmt::format("{} KiB", limit.rlim_cur / 1024));
  if (limit.rlim_cur < kPinnedPerPeer && ::geteuid() != 0)
    lines->complain(fmt::format(
        "this process may lock {} KiB of memory, and a connected peer takes up to {}: raise "
        "`ulimit -l`, best to unlimited (limits.conf, LimitMEMLOCK= of the service, --ulimit "
        "memlock=-1 of the container)",
        limit.rlim_cur / 1024, kPinnedPerPeer / 1024));
}

std::string network_device(const rdma::PortInfo& port) {
  return first_line(fmt::format("/sys/class/infiniband/{}/ports/{}/gid_attrs/ndevs/{}", port.device,
                                port.port, port.gid.index));
}

// Counted since the port came up, so what is wrong may be long past: the exit status is none the
// worse.
void report_fabric(const rdma::PortInfo& port, const std::string& interface, Lines* lines) {
  FabricReadings readings = read_fabric("/sys", port.device, port.port, interface);
  readings.link.merge(driver_counters(interface));
  readings.lossless = lossless_priorities(interface);
  const FabricHints hints = explain_fabric(readings, interface);
  if (port.ethernet)
    for (const std::string& text : hints.seen) lines->say("", text);
  for (const std::string& text : hints.wrong) lines->say("", "look at: " + text);
}

void report_port(const rdma::PortInfo& port, Lines* lines) {
  const std::string interface = network_device(port);
  lines->say(port.name(), port.to_text());
  lines->say("",
             fmt::format("GID {} of {}{}{}{}, up to {} queue pairs of {} work requests",
                         port.gid.index, port.gids, interface.empty() ? "" : ", on " + interface,
                         port.pci.empty() ? "" : ", PCI " + port.pci,
                         port.numa_node < 0 ? "" : fmt::format(", NUMA node {}", port.numa_node),
                         port.max_qp, port.max_qp_wr));
  if (port.ethernet && rdma::bytes_of(port.mtu) < 4096)
    lines->say("", fmt::format("MTU {}: packets of 4096 bytes need frames of 4200 on {} and on "
                               "the switches (ip link set mtu)",
                               rdma::bytes_of(port.mtu),
                               interface.empty() ? "the network device" : interface));
  report_fabric(port, interface, lines);
}

void report_gpus(const rdma::Verbs& verbs, Lines* lines) {
  const bool driver = !first_line("/proc/driver/nvidia/version").empty();
  const bool peermem = ::access("/sys/module/nvidia_peermem", F_OK) == 0;
  const bool dmabuf = verbs.reg_dmabuf_mr != nullptr;
  lines->say("GPUDirect",
             !driver
                 ? "no NVIDIA driver here"
                 : fmt::format("nvidia-peermem {}; libibverbs {} register DMA-BUFs",
                               peermem ? "is loaded" : "is not loaded", dmabuf ? "can" : "cannot"));
}

}  // namespace

HostReport report_rdma_host(const Knobs& knobs) {
  HostReport report;
  Lines lines(&report);
  if (knobs.get_bool(Knob::kIbDisable)) {
    lines.complain(fmt::format("COMM_IB_DISABLE=1 ({}): unset it", knobs.origin(Knob::kIbDisable)));
    return report;
  }
  const auto verbs = rdma::Verbs::open();
  if (!verbs) {
    lines.complain(verbs.status().message() +
                   ": install it (Debian: libibverbs1, "
                   "ibverbs-providers)");
    return report;
  }
  report_permission(&lines);
  report_memlock(&lines);
  const auto ports = rdma::find_ports(knobs);
  if (!ports) {
    lines.complain(ports.status().message());
    report_gpus(**verbs, &lines);
    return report;
  }
  for (const rdma::PortFinding& port : *ports) {
    report.usable = report.usable || port.usable;
    if (port.usable) {
      report_port(port.info, &lines);
    } else {
      lines.say(port.name, "cannot be used");
      lines.complain(fmt::format("{} cannot be used: {}", port.name, port.reason));
    }
  }
  report_gpus(**verbs, &lines);
  return report;
}

}  // namespace libcomm
