#include "src/topology/affinity.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "src/topology/cpu_list.h"

namespace libcomm {
namespace {

// A kernel CPU mask for CPU numbers below `cpus`; cpu_set_t itself ends at 1024.
class CpuMask {
 public:
  explicit CpuMask(int cpus) : bytes_(CPU_ALLOC_SIZE(cpus)), set_(CPU_ALLOC(cpus)) {
    if (set_) CPU_ZERO_S(bytes_, set_.get());
  }
  bool valid() const { return set_ != nullptr; }
  cpu_set_t* get() const { return set_.get(); }
  size_t bytes() const { return bytes_; }
  int capacity() const { return static_cast<int>(bytes_ * 8); }
  bool has(int cpu) const { return CPU_ISSET_S(static_cast<size_t>(cpu), bytes_, set_.get()); }
  void add(int cpu) { CPU_SET_S(static_cast<size_t>(cpu), bytes_, set_.get()); }

 private:
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  size_t bytes_;
  std::unique_ptr<cpu_set_t, Free> set_;
};

Result<std::vector<int>> current_affinity() {
  // The kernel wants room for every CPU that it could have and says EINVAL to less.
  for (int capacity = 1024; capacity <= 2 * (kMaxCpuNumber + 1); capacity *= 2) {
    CpuMask mask(capacity);
    if (!mask.valid()) return system_error(ENOMEM, "allocating a CPU mask");
    if (sched_getaffinity(0, mask.bytes(), mask.get()) == 0) {
      std::vector<int> cpus;
      for (int cpu = 0; cpu < mask.capacity(); ++cpu)
        if (mask.has(cpu)) cpus.push_back(cpu);
      return cpus;
    }
    if (errno != EINVAL) break;
  }
  return system_error(errno, "reading this thread's CPU affinity");
}

struct OwnBinding {
  std::vector<int> before;  // what was imposed on the thread
  std::vector<int> bound;   // what we narrowed it to; empty: we did not
};
thread_local OwnBinding t_binding;

}  // namespace

Result<std::vector<int>> imposed_affinity() {
  COMM_ASSIGN(std::vector<int> now, current_affinity());
  if (!t_binding.bound.empty() && now == t_binding.bound) return t_binding.before;
  return now;
}

Status bind_calling_thread(std::span<const int> cpus) {
  if (cpus.empty()) return error(Code::kInvalidArgument, "no CPU to bind the thread to");
  COMM_ASSIGN(std::vector<int> before, imposed_affinity());
  const int highest = *std::max_element(cpus.begin(), cpus.end());
  CpuMask mask(highest + 1);
  if (!mask.valid()) return system_error(ENOMEM, "allocating a CPU mask");
  for (int cpu : cpus) mask.add(cpu);
  if (sched_setaffinity(0, mask.bytes(), mask.get()) != 0)
    return system_error(errno, fmt::format("binding a thread to CPUs {}", format_cpu_list(cpus)));
  // Read back: the kernel drops CPUs that the cgroup does not allow without saying so.
  COMM_ASSIGN(std::vector<int> bound, current_affinity());
  t_binding = {std::move(before), std::move(bound)};
  return Status::ok();
}

}  // namespace libcomm
