// Placement: which core a rank gets, and binding a thread to it.
#include <algorithm>
#include <iterator>

#include "src/topology/affinity.h"
#include "src/topology/cpu_list.h"
#include "src/topology/topology.h"
#include "src/topology/topology_data.h"

namespace libcomm {
namespace {

std::vector<int> intersection(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

// The device id of the core that has hardware thread `cpu`, -1 when none has.
int core_of_cpu(const std::vector<Attachment>& attachments, int cpu) {
  for (size_t id = 0; id < attachments.size(); ++id) {
    const auto& threads = attachments[id].threads;
    if (std::binary_search(threads.begin(), threads.end(), cpu)) return static_cast<int>(id);
  }
  return -1;
}

}  // namespace

// A class of statics because only friends of Topology see its data.
class Placement {
 public:
  static Result<int> from_list(const Topology& topology, const std::string& affinity,
                               int local_rank) {
    auto cpus = parse_cpu_list(affinity);
    if (!cpus)
      return std::move(cpus).status().context(fmt::format("COMM_CPU_AFFINITY={}", affinity));
    const auto& usable = topology.data_->usable_threads;
    std::vector<int> refused;
    for (int cpu : *cpus)
      if (!std::binary_search(usable.begin(), usable.end(), cpu)) refused.push_back(cpu);
    if (!refused.empty()) {
      const bool one = std::adjacent_find(refused.begin(), refused.end(), std::not_equal_to<>()) ==
                       refused.end();
      return error(Code::kInvalidArgument,
                   "COMM_CPU_AFFINITY={}: {} {} {} not among the cores this process may use: {}",
                   affinity, one ? "core" : "cores", format_cpu_list(refused), one ? "is" : "are",
                   format_cpu_list(usable));
    }
    const int cpu = (*cpus)[static_cast<size_t>(local_rank) % cpus->size()];
    return core_of_cpu(topology.data_->attachments, cpu);
  }

  static Status bind(const Topology& topology, int core_device) {
    const Topology::Data& data = *topology.data_;
    if (core_device < 0 || static_cast<size_t>(core_device) >= data.devices.size() ||
        data.devices[static_cast<size_t>(core_device)].kind != DeviceKind::kCore)
      return error(Code::kInvalidArgument, "device {} is not a core; this machine's cores are 0-{}",
                   core_device, data.cores - 1);
    if (!data.is_this_machine)
      return error(Code::kInvalidUsage,
                   "cannot bind a thread to {}: the topology comes from {}, not from this machine; "
                   "unset the variable or COMM_CPU_AFFINITY",
                   data.devices[static_cast<size_t>(core_device)].name, data.source);
    const auto threads = intersection(data.attachments[static_cast<size_t>(core_device)].threads,
                                      data.usable_threads);
    if (threads.empty())
      return error(Code::kInvalidArgument, "{} is not among the cores this process may use: {}",
                   data.devices[static_cast<size_t>(core_device)].name,
                   format_cpu_list(data.usable_threads));
    return bind_calling_thread(threads);
  }
};

Result<int> core_for_rank(const Topology& topology, const std::string& affinity, int local_rank,
                          int local_nranks) {
  if (affinity.empty()) return -1;
  if (local_rank < 0 || local_rank >= local_nranks)
    return error(Code::kInvalidArgument,
                 "COMM_CPU_AFFINITY={}: local rank {} of {} cannot be given a core", affinity,
                 local_rank, local_nranks);
  if (affinity != "auto") return Placement::from_list(topology, affinity, local_rank);
  const std::vector<int> usable = topology.usable_cores();
  if (usable.empty())
    return error(Code::kInvalidArgument,
                 "COMM_CPU_AFFINITY=auto: this process may use none of the machine's {} cores",
                 topology.cores());
  // Usable cores come in order of package and NUMA node. Stretching the ranks over them evenly
  // fills nodes in proportion to their cores, and shares cores evenly when there are more ranks.
  const auto index =
      static_cast<uint64_t>(local_rank) * usable.size() / static_cast<uint64_t>(local_nranks);
  return usable[index];
}

Status bind_thread(const Topology& topology, int core_device) {
  return Placement::bind(topology, core_device);
}

}  // namespace libcomm
