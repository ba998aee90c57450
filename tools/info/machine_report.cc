#include "tools/info/machine_report.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "src/base/fd.h"
#include "src/bootstrap/address.h"
#include "transports/shm/memory.h"

namespace libcomm {
namespace {

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string join(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : std::string(between)) + word;
  return text;
}

std::vector<std::string> folder_entries(const char* path) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
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

// Reads a child's memory as a rank would read its peer's.
Finding find_cma(const Knobs& knobs) {
  if (knobs.get_bool(Knob::kCmaDisable))
    return disabled_by("cma", knobs, Knob::kCmaDisable, "COMM_CMA_DISABLE");
  volatile int word = 1;
  const pid_t child = ::fork();
  if (child < 0) return {"cma", false, fmt::format("fork: {}", strerror(errno))};
  if (child == 0) {
    word = 2;
    ::pause();
    ::_exit(0);
  }
  int seen = 0, err = 0;
  // The child needs a moment to write; whether the word is old or new, a successful read is the
  // answer.
  iovec here{&seen, sizeof seen};
  iovec there{const_cast<int*>(&word), sizeof word};
  if (::process_vm_readv(child, &here, 1, &there, 1, 0) != sizeof seen) err = errno;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (err == 0) {
    const std::string yama = first_line("/proc/sys/kernel/yama/ptrace_scope");
    if (!yama.empty() && yama != "0") {
      return {"cma", false,
              fmt::format("kernel.yama.ptrace_scope is {}: ranks may read their children only; 0 "
                          "lets them read each other, staging is used meanwhile",
                          yama)};
    }
    return {"cma", true, "process_vm_readv between the processes of one user"};
  }
  return {"cma", false,
          fmt::format("process_vm_readv: {}; staging is used (containers: --cap-add=SYS_PTRACE)",
                      strerror(err))};
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

Finding find_rdma() {
  const auto devices = folder_entries("/sys/class/infiniband");
  return {"rdma", false,
          fmt::format("not in this version; devices here: {}",
                      devices.empty() ? "none" : join(devices, ", "))};
}

Finding find_cuda() {
  const std::string driver = first_line("/proc/driver/nvidia/version");
  return {
      "cuda", false,
      fmt::format("not in this version; NVIDIA driver here: {}", driver.empty() ? "none" : driver)};
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
  return {find_shm(knobs), find_cma(knobs), find_tcp(knobs), find_rdma(), find_cuda()};
}

std::vector<Finding> find_launchers() {
  return {from_variables("comm", {"COMM_RANK", "COMM_NRANKS", "COMM_ID"}), find_pmix(),
          from_variables("pmi1", {"PMI_RANK", "PMI_SIZE", "PMI_FD"}),
          from_variables("torchrun", {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}),
          from_variables("slurm", {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"})};
}

}  // namespace libcomm
