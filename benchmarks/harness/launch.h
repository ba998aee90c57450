// Ranks as processes of this host, without a launcher.
//
// The parent forks the children before the library is used and stays a bystander: it passes small
// messages from the first child to the others (a unique id, say), watches for deaths and signals,
// and ends everybody when one child fails. Children die with the parent, whatever kills it.
#pragma once

#include <cstddef>
#include <functional>

namespace bench {

// A child's line to the parent.
class Relay {
 public:
  Relay(int index, int fd) : index_(index), fd_(fd) {}

  // Child 0's bytes arrive in every other child's `bytes`. At most kMaxBytes. Every child calls it,
  // equally often. False when the line broke.
  bool share(void* bytes, size_t size);

  static constexpr size_t kMaxBytes = 4096;

 private:
  int index_;
  int fd_;
};

// Runs body(index, relay) in `count` forked children, index 0..count-1, and waits for all. Returns
// 0 when all returned 0; otherwise the first failure's exit status, or 128 + signal, after a line
// on stderr that names the child. The other children then have two seconds to report what they saw
// before they are killed. Call it while the process has one thread.
int run_local_processes(const char* program, int count,
                        const std::function<int(int index, Relay& relay)>& body);

// Cores this process may use.
int available_cores();

// True when the environment describes a job that commInitFromLauncher would join: our own
// variables, PMIx, PMI-1, torchrun, or a Slurm step.
bool launched();

}  // namespace bench
