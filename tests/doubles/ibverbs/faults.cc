#include "tests/doubles/ibverbs/faults.h"

#include <algorithm>
#include <map>

#include "tests/doubles/ibverbs/node.h"

namespace rdma_double {
namespace {

bool concerns(const FaultRule& rule, const Qp& qp) {
  return rule.queue_pair == 0 || rule.queue_pair == qp.serial;
}

}  // namespace

bool fails(const Qp& qp, const SendRequest& request, ibv_wc_status* status) {
  if (request.number == qp.fail_number) {
    *status = qp.fail_status;
    return true;
  }
  for (const FaultRule& rule : config().fail) {
    if (!concerns(rule, qp) || request.number != std::max<uint64_t>(1, rule.operation)) continue;
    *status = rule.status;
    return true;
  }
  return false;
}

bool loses(Qp& qp, const Header& header) {
  if (qp.losses > 0) {
    --qp.losses;
    return true;
  }
  auto& lost_by = qp.node->losses_by_rule();
  const std::vector<FaultRule>& rules = config().lose;
  lost_by.resize(rules.size());
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!concerns(rules[i], qp) || (rules[i].below > 0 && header.length >= rules[i].below))
      continue;
    if (rules[i].count > 0 && lost_by[i] >= rules[i].count) continue;
    ++lost_by[i];
    return true;
  }
  return false;
}

int64_t due_ns(Qp& qp, const Header& header, int64_t now) {
  const Config& c = config();
  Device& device = qp.device();
  int64_t due = now + c.delay_ns;
  if (c.jitter_ns > 0)
    due += static_cast<int64_t>(qp.node->random(static_cast<uint64_t>(c.jitter_ns)));
  DeviceCounters& counters = device.counters;
  if (device.receive_rate > 0) {
    const int64_t start = std::max(now, device.busy_until_ns);
    const auto service = static_cast<int64_t>(static_cast<double>(header.payload + sizeof(Header)) *
                                              1e9 / static_cast<double>(device.receive_rate));
    device.busy_until_ns = start + service;
    counters.busy_ns += service;
    if (counters.first_ns == 0) counters.first_ns = start;
    counters.last_ns = device.busy_until_ns;
    due = std::max(due, device.busy_until_ns);
  }
  return due;
}

}  // namespace rdma_double
