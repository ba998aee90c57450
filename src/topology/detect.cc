// Topology::detect: a machine is read once per process, because every communicator asks for it and
// hwloc takes milliseconds.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/topology/affinity.h"
#include "src/topology/hwloc_machine.h"
#include "src/topology/nvml.h"
#include "src/topology/topology_data.h"

namespace libcomm {
namespace {

constexpr size_t kMostMachines = 4;  // that are remembered; programs have one

// What decides what would be read.
struct Source {
  pid_t process = 0;  // a child may have gone to another container
  std::string label;
  std::optional<std::string> text;     // of the topology file
  std::vector<std::string> variables;  // hwloc's own
  std::array<int64_t, 6> xml_file{};   // what tells a file that one of them names from a later one
  bool with_nvml = false;
  bool operator==(const Source&) const = default;
};

std::array<int64_t, 6> identity_of(const char* path) {
  struct stat about {};
  if (path == nullptr || ::stat(path, &about) != 0) return {};
  return {static_cast<int64_t>(about.st_dev),
          static_cast<int64_t>(about.st_ino),
          about.st_size,
          about.st_mtim.tv_sec,
          about.st_mtim.tv_nsec,
          about.st_ctim.tv_nsec};
}

Source source_now(std::string label, std::optional<std::string> text) {
  Source source{::getpid(), std::move(label), std::move(text), {}, {}, false};
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable)
    if (std::string_view(*variable).starts_with("HWLOC_")) source.variables.push_back(*variable);
  source.xml_file = identity_of(std::getenv("HWLOC_XMLFILE"));
  return source;
}

}  // namespace

// A class of statics because only friends of Topology see its data.
class MachineMemory {
 public:
  static Result<Topology> get(const TopologyFile& file, bool with_nvlinks) {
    COMM_ASSIGN(auto text, read_topology_file(file));
    Source source = source_now(text ? file.label : "", std::move(text));
    std::optional<Topology> machine = find(source);
    if (!machine) {
      COMM_ASSIGN(const TopologyDescription description, parse_topology_file(source.text, file));
      COMM_ASSIGN(machine, read(source, description, file));
    }
    if (with_nvlinks) machine = add_nvml(std::move(source), *std::move(machine));
    return for_calling_thread(*std::move(machine));
  }

 private:
  struct Entry {
    Source source;
    Topology machine;
  };

  // Never destroyed: a thread may ask while the process ends.
  static std::vector<Entry>& entries() {
    static auto* const entries = new std::vector<Entry>;
    return *entries;
  }

  static std::optional<Topology> find(const Source& source) {
    const std::lock_guard lock(mutex_);
    return find_locked(source);
  }

  static std::optional<Topology> find_locked(const Source& source) {
    for (const Entry& entry : entries())
      if (entry.source == source) return entry.machine;
    return std::nullopt;
  }

  static Result<Topology> read(const Source& source, const TopologyDescription& description,
                               const TopologyFile& file) {
    const std::lock_guard lock(mutex_);
    // Another thread may have been first.
    if (auto machine = find_locked(source)) return *std::move(machine);
    COMM_ASSIGN(const Topology machine, read_machine(description, file));
    remember_locked(source, machine);
    return machine;
  }

  static void remember_locked(const Source& source, const Topology& machine) {
    if (entries().size() == kMostMachines) entries().erase(entries().begin());
    entries().push_back({source, machine});
  }

  // What `source` describes with what NVML tells. Not under the lock: NVML may fork, which takes
  // it.
  static Topology add_nvml(Source source, Topology machine) {
    std::vector<std::string> gpus;
    for (const Device& device : machine.devices()) {
      const Attachment& at = machine.data_->attachments[static_cast<size_t>(device.id)];
      if (at.is_nvidia && !at.nvlinks_known) gpus.push_back(device.address);
    }
    if (!machine.is_this_machine() || gpus.empty()) return machine;
    source.with_nvml = true;
    if (auto known = find(source)) return *std::move(known);
    auto linked = std::make_shared<Topology::Data>(*machine.data_);
    add_nvlinks(read_nvlinks(gpus), linked->devices, &linked->attachments);
    machine.data_ = std::move(linked);
    const std::lock_guard lock(mutex_);
    // Another thread may have been first.
    if (auto known = find_locked(source)) return *std::move(known);
    remember_locked(source, machine);
    return machine;
  }

  // With the cores that this thread may use. All of a machine that is not ours.
  static Result<Topology> for_calling_thread(Topology machine) {
    if (!machine.is_this_machine()) return machine;
    COMM_ASSIGN(const std::vector<int> imposed, imposed_affinity());
    const auto& allowed = machine.data_->usable_threads;
    std::vector<int> usable;
    std::set_intersection(allowed.begin(), allowed.end(), imposed.begin(), imposed.end(),
                          std::back_inserter(usable));
    if (usable == allowed) return machine;
    auto own = std::make_shared<Topology::Data>(*machine.data_);
    if (own->without_file) {
      auto without_file = std::make_shared<Topology::Data>(*own->without_file);
      without_file->usable_threads = usable;
      own->without_file = std::move(without_file);
    }
    own->usable_threads = std::move(usable);
    machine.data_ = std::move(own);
    return machine;
  }

  // Held while hwloc reads: its use of libudev is not for several threads at once (seen by
  // ThreadSanitizer).
  static ForkMutex mutex_;
};

ForkMutex MachineMemory::mutex_;

Result<Topology> Topology::detect(const TopologyFile& file) {
  return MachineMemory::get(file, false);
}

Result<Topology> Topology::detect_with_nvlinks(const TopologyFile& file) {
  return MachineMemory::get(file, true);
}

}  // namespace libcomm
