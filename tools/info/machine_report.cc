#include "tools/info/machine_report.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "src/bootstrap/address.h"
#include "transports/shm/memory.h"

namespace libcomm {
namespace {

std::string join(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : std::string(between)) + word;
  return text;
}

Finding disabled_by(const char* name, const Knobs& knobs, Knob knob, const char* knob_name) {
  return {name, false, fmt::format("disabled by {}=1 ({})", knob_name, knobs.origin(knob))};
}

Finding find_shm(const Knobs& knobs) {
  if (knobs.get_bool(Knob::kShmDisable))
    return disabled_by("shm", knobs, Knob::kShmDisable, "COMM_SHM_DISABLE");
  constexpr size_t kTrialBytes = 64 << 10;
  auto memory = segment_alloc(kTrialBytes);
  if (!memory) return {"shm", false, memory.status().message()};
  std::memset(*memory, 1, kTrialBytes);
  if (const Status freed = segment_free(*memory); !freed) return {"shm", false, freed.message()};
  return {"shm", true, "shared memory between the processes of this host (memfd)"};
}

Finding find_tcp(const Knobs& knobs) {
  const auto chosen = local_addresses(knobs);
  if (!chosen) return {"tcp", false, chosen.status().message()};
  std::vector<std::string> interfaces;
  if (const auto all = list_interfaces(wanted_family(knobs))) {
    for (const Interface& interface : *all) {
      std::vector<std::string> used;
      for (const SocketAddress& address : interface.addresses) {
        if (std::find(chosen->begin(), chosen->end(), address) != chosen->end())
          used.push_back(address.to_string());
      }
      if (!used.empty())
        interfaces.push_back(fmt::format("{} ({})", interface.name, join(used, ", ")));
    }
  }
  return {"tcp", true,
          "sockets over " + (interfaces.empty() ? to_string(*chosen) : join(interfaces, ", "))};
}

// "name=value" of the variables among `names` that are set.
std::string variables(std::initializer_list<const char*> names) {
  std::vector<std::string> found;
  for (const char* name : names) {
    if (const char* value = std::getenv(name)) found.push_back(fmt::format("{}={}", name, value));
  }
  return join(found, " ");
}

Finding from_variables(const char* launcher, std::initializer_list<const char*> names) {
  const std::string found = variables(names);
  return {launcher, !found.empty(), found.empty() ? "its variables are not set" : found};
}

Finding find_pmix() {
  constexpr const char* kLibrary = "libpmix.so.2";
  void* library = ::dlopen(kLibrary, RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr)
    return {"pmix", false, fmt::format("{} cannot be opened (Debian: libpmix2)", kLibrary)};
  ::dlclose(library);
  const std::string found = variables({"PMIX_RANK", "PMIX_NAMESPACE"});
  return {"pmix", !found.empty(),
          fmt::format("{} is here; {}", kLibrary,
                      found.empty() ? "not started by mpirun or srun --mpi=pmix" : found)};
}

}  // namespace

std::vector<Finding> find_transports(const Knobs& knobs) {
  return {find_shm(knobs), find_tcp(knobs), find_rdma(knobs), find_cuda()};
}

std::vector<Finding> find_launchers() {
  return {from_variables("comm", {"COMM_RANK", "COMM_NRANKS", "COMM_ID"}), find_pmix(),
          from_variables("pmi1", {"PMI_RANK", "PMI_SIZE", "PMI_FD"}),
          from_variables("torchrun", {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}),
          from_variables("slurm", {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"})};
}

}  // namespace libcomm
