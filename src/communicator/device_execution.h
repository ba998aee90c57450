// DeviceExecution: a kernel of the executor of GPUs at work, as the engine sees it. The kernel does
// everything; this looks on, so that operations keep their order and a wait ends.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/device/kernels/execute_arguments.h"
#include "src/execute/execution.h"

namespace libcomm {

// What a kernel and its host tell each other; in pinned memory.
struct DeviceWords {
  uint32_t begun = 0;  // the number of the last launch that has begun
  uint32_t ended = 0;  // and ended
  uint32_t abort = 0;  // set by the host, for good
  std::array<uint32_t, cuda::kMostExecuteLanes> awaits{};  // cuda::await_word() of each lane
  cuda::ExecuteMismatch mismatch;                          // after which the kernel waits for abort
};

class DeviceExecution final : public Execution {
 public:
  // `check` asks now and then whether the GPU still works, and whether the ranks do the same.
  DeviceExecution(DeviceWords* words, uint32_t number, std::function<Status()> check)
      : words_(*words), number_(number), check_(std::move(check)) {}
  bool has_begun() const { return is_reached(words_.begun); }
  bool has_ended() const { return is_reached(words_.ended); }

  Status advance(Progress* progress) override;
  // Those for which lanes have waited for a while; after has_looked(), lanes that have.
  void awaited_peers(std::vector<int>* peers) const override;
  // The kernel looks, not advance(): when a lane that waits has said so twice since.
  bool has_looked(size_t number) override;
  // No peer rings when a kernel ends.
  int longest_nap_us() const override { return 100; }

 private:
  bool is_reached(uint32_t& word) const {
    const uint32_t now = std::atomic_ref<uint32_t>(word).load(std::memory_order_acquire);
    return static_cast<int32_t>(now - number_) >= 0;
  }
  // Of has_looked(), for each lane.
  struct Seen {
    uint32_t word = 0;
    int changes = 0;
  };

  DeviceWords& words_;
  const uint32_t number_;
  const std::function<Status()> check_;
  std::optional<Deadline> check_at_;
  std::optional<size_t> asked_;  // has_looked()'s last number
  std::array<Seen, cuda::kMostExecuteLanes> seen_{};
};

}  // namespace libcomm
