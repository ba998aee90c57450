#include "tests/doubles/ibverbs/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

Config& settings() {
  static Config* const value = new Config;
  return *value;
}

std::vector<std::string> split(const std::string& list, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= list.size()) {
    const size_t end = std::min(list.find(separator, begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string word(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == 0 ? otherwise : value;
}

// A number with an optional K, M or G (powers of 1024).
uint64_t parse_number(const char* name, const std::string& value) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(value.c_str(), &end, 0);
  const std::string unit = end;
  if (value.empty() || value[0] == '-') fatal("%s=%s is no number", name, value.c_str());
  if (unit.empty()) return number;
  if (unit == "K") return number << 10;
  if (unit == "M") return number << 20;
  if (unit == "G") return number << 30;
  fatal("%s=%s: %s is no unit (K, M, G)", name, value.c_str(), unit.c_str());
}

template <typename Number>
void number(const char* name, Number* value) {
  const std::string given = word(name, "");
  if (!given.empty()) *value = static_cast<Number>(parse_number(name, given));
}

// 250us, 3ms, 2s, or 17 (nanoseconds).
int64_t parse_time(const char* name, const std::string& value) {
  char* end = nullptr;
  const double amount = std::strtod(value.c_str(), &end);
  static const std::map<std::string, double> units = {
      {"", 1}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  const auto unit = units.find(end);
  if (value.empty() || unit == units.end())
    fatal("%s=%s is no time (ns, us, ms, s)", name, value.c_str());
  return static_cast<int64_t>(amount * unit->second);
}

void time(const char* name, int64_t* value) {
  const std::string given = word(name, "");
  if (!given.empty()) *value = parse_time(name, given);
}

ibv_wc_status parse_status(const char* name, const std::string& value) {
  static const std::map<std::string, ibv_wc_status> known = {
      {"retry_exc", IBV_WC_RETRY_EXC_ERR},   {"rnr_retry_exc", IBV_WC_RNR_RETRY_EXC_ERR},
      {"rem_access", IBV_WC_REM_ACCESS_ERR}, {"rem_inv_req", IBV_WC_REM_INV_REQ_ERR},
      {"rem_op", IBV_WC_REM_OP_ERR},         {"loc_prot", IBV_WC_LOC_PROT_ERR},
      {"loc_qp_op", IBV_WC_LOC_QP_OP_ERR},   {"fatal", IBV_WC_FATAL_ERR},
      {"general", IBV_WC_GENERAL_ERR}};
  const auto found = known.find(value);
  if (found == known.end()) fatal("%s: no status %s", name, value.c_str());
  return found->second;
}

// "qp=2:op=100:status=retry_exc,qp=1:..."
std::vector<FaultRule> rules(const char* name) {
  std::vector<FaultRule> all;
  for (const std::string& one : split(word(name, ""), ',')) {
    FaultRule rule;
    for (const std::string& part : split(one, ':')) {
      const size_t equals = part.find('=');
      const std::string key = part.substr(0, equals);
      const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
      if (key == "qp")
        rule.queue_pair = value == "*" ? 0 : parse_number(name, value);
      else if (key == "op")
        rule.operation = parse_number(name, value);
      else if (key == "status")
        rule.status = parse_status(name, value);
      else if (key == "below")
        rule.below = parse_number(name, value);
      else if (key == "count")
        rule.count = parse_number(name, value);
      else
        fatal("%s: no key %s (qp, op, status, below, count)", name, key.c_str());
    }
    all.push_back(rule);
  }
  return all;
}

// "0/1:down@100ms,0/1:up@200ms"
std::vector<PortEvent> port_events(const char* name) {
  std::vector<PortEvent> all;
  for (const std::string& one : split(word(name, ""), ',')) {
    const size_t slash = one.find('/'), colon = one.find(':'), at = one.find('@');
    if (slash == std::string::npos || colon == std::string::npos || at == std::string::npos ||
        slash > colon || colon > at)
      fatal("%s: %s is not DEVICE/PORT:down@TIME or :up@TIME", name, one.c_str());
    PortEvent event;
    event.device = static_cast<int>(parse_number(name, one.substr(0, slash)));
    event.port = static_cast<int>(parse_number(name, one.substr(slash + 1, colon - slash - 1)));
    event.up = one.substr(colon + 1, at - colon - 1) == "up";
    event.after_ns = parse_time(name, one.substr(at + 1));
    all.push_back(event);
  }
  return all;
}

ibv_mtu parse_mtu(const std::string& value) {
  static const std::map<std::string, ibv_mtu> known = {{"256", IBV_MTU_256},
                                                       {"512", IBV_MTU_512},
                                                       {"1024", IBV_MTU_1024},
                                                       {"2048", IBV_MTU_2048},
                                                       {"4096", IBV_MTU_4096}};
  const auto found = known.find(value);
  if (found == known.end()) fatal("RDMA_DOUBLE_MTU=%s is no MTU", value.c_str());
  return found->second;
}

}  // namespace

bool Config::lack(const std::string& feature) const {
  return std::find(lacks.begin(), lacks.end(), feature) != lacks.end();
}

const Config& config() { return settings(); }

void read_config() {
  Config c;
  c.fabric = word("RDMA_DOUBLE_FABRIC", text("u%u-s%d", ::getuid(), ::getsid(0)));
  c.strict = word("RDMA_DOUBLE_STRICT", "1") != "0";
  number("RDMA_DOUBLE_DEVICES", &c.devices);
  number("RDMA_DOUBLE_PORTS", &c.ports);
  c.name = word("RDMA_DOUBLE_NAME", c.name);
  c.infiniband = word("RDMA_DOUBLE_LINK", "ethernet") == "infiniband";
  number("RDMA_DOUBLE_HOST", &c.host);
  c.mtu = parse_mtu(word("RDMA_DOUBLE_MTU", "4096"));
  c.gids = split(word("RDMA_DOUBLE_GIDS", ""), ',');
  c.pci = split(word("RDMA_DOUBLE_PCI", ""), ',');
  c.sysfs = word("RDMA_DOUBLE_SYSFS", "");
  c.lacks = split(word("RDMA_DOUBLE_LACKS", ""), ',');
  number("RDMA_DOUBLE_SPEED_GBPS", &c.speed_gbps);
  number("RDMA_DOUBLE_MAX_QP", &c.max_qp);
  number("RDMA_DOUBLE_MAX_QP_WR", &c.max_qp_wr);
  number("RDMA_DOUBLE_MAX_SGE", &c.max_sge);
  number("RDMA_DOUBLE_MAX_CQ", &c.max_cq);
  number("RDMA_DOUBLE_MAX_CQE", &c.max_cqe);
  number("RDMA_DOUBLE_MAX_MR", &c.max_mr);
  number("RDMA_DOUBLE_MAX_PD", &c.max_pd);
  number("RDMA_DOUBLE_MAX_RD_ATOMIC", &c.max_rd_atomic);
  number("RDMA_DOUBLE_MAX_INLINE", &c.max_inline);
  number("RDMA_DOUBLE_MEMLOCK", &c.memlock);
  c.peermem = word("RDMA_DOUBLE_PEERMEM", "0") != "0";
  c.late_gpu = word("RDMA_DOUBLE_LATE_GPU", "0") != "0";
  number("RDMA_DOUBLE_WINDOW", &c.window);
  time("RDMA_DOUBLE_DELAY", &c.delay_ns);
  time("RDMA_DOUBLE_JITTER", &c.jitter_ns);
  number("RDMA_DOUBLE_SEED", &c.seed);
  for (const std::string& rate : split(word("RDMA_DOUBLE_RECEIVE_RATE", ""), ','))
    c.receive_rates.push_back(parse_number("RDMA_DOUBLE_RECEIVE_RATE", rate));
  c.fail = rules("RDMA_DOUBLE_FAIL");
  c.lose = rules("RDMA_DOUBLE_LOSE");
  c.port_events = port_events("RDMA_DOUBLE_PORT_EVENTS");
  settings() = c;
}

}  // namespace rdma_double
