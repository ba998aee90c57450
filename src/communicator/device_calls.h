// DeviceCalls: collectives on GPU memory that kernels of the ranks do with each other, without the
// host: the executor of GPUs (src/device/kernels/execute_step.h).
//
// A call is a kernel on its stream and nothing else. The engine only looks on, so that operations
// keep their order and a wait ends: when the communicator has failed it tells the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include "src/base/clock.h"
#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/device/memory.h"
#include "src/execute/device_program.h"
#include "src/execute/execution.h"
#include "src/plan/algorithm_choice.h"
#include "transports/cuda/slot_areas.h"

namespace libcomm {

// What a kernel and its host tell each other; in pinned memory.
struct DeviceWords {
  uint32_t begun = 0;  // the number of the last launch that has begun
  uint32_t ended = 0;  // and ended
  uint32_t abort = 0;  // set by the host, for good
};

class DeviceCalls {
 public:
  // A program that is ready to run, any number of times.
  class Program {
   public:
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

   private:
    friend class DeviceCalls;
    Program() = default;
    DeviceProgram program_;  // without its steps, which are in the pinned memory
    cuda::PinnedBuffer pinned_;
    size_t operands_at_ = 0, operand_count_ = 0;
    std::shared_ptr<std::atomic<size_t>> pinned_bytes_;
  };

  // How large a call may be where the executor is chosen by the library.
  static constexpr size_t kMostBytes = size_t{256} << 10;

  // Collective. `memory` is what `ranks` have agreed on. Null where COMM_GPU_EXECUTOR, the GPUs of
  // the ranks or the memory do not allow it, or some rank does not want it, at all ranks alike.
  // Errors: those of the bootstrap.
  static Result<std::shared_ptr<DeviceCalls>> agree(Bootstrap& bootstrap,
                                                    const cuda::Driver& driver,
                                                    cuda::PeerMemory& memory,
                                                    std::span<const cuda::GpuRank> ranks,
                                                    const Knobs& knobs, int min_lanes,
                                                    int max_lanes, bool wanted);

  // The program of a call that goes this way, null if it does not: the same at all ranks. For the
  // thread of the calls, with the context of the memory current.
  Result<std::shared_ptr<const Program>> find(const Operation& operation);

  // Puts the kernel on the stream. It calls itself `number`. `repeats`: it is captured.
  Status launch(const Program& program, const Operation& operation, uint32_t number,
                DeviceWords* words, const uint32_t* abort, bool repeats,
                cuda::CUstream stream) const;

  size_t device_bytes() const { return areas_->bytes(); }
  size_t pinned_bytes() const { return pinned_bytes_->load(std::memory_order_relaxed); }

 private:
  struct Key {
    Signature signature;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  DeviceCalls(const cuda::Driver& driver, const cuda::PeerMemory& memory, int rank)
      : driver_(driver), context_(memory.context()), kernels_(memory.kernels()), rank_(rank) {}
  bool goes_so(const Operation& operation) const;
  Result<std::shared_ptr<const Program>> make(const Operation& operation) const;

  const cuda::Driver& driver_;
  const cuda::CUcontext context_;
  const std::shared_ptr<const cuda::Kernels> kernels_;
  const int rank_;
  bool always_ = false;
  AlgorithmChoice forced_;
  std::unique_ptr<cuda::SlotAreas> areas_;
  std::unordered_map<Key, std::shared_ptr<const Program>, KeyHash> programs_;
  std::shared_ptr<std::atomic<size_t>> pinned_bytes_ = std::make_shared<std::atomic<size_t>>(0);
};

// A kernel of DeviceCalls at work, as the engine sees it.
class DeviceExecution final : public Execution {
 public:
  // `check` asks now and then whether the GPU still works.
  DeviceExecution(DeviceWords* words, uint32_t number, std::function<Status()> check)
      : words_(*words), number_(number), check_(std::move(check)) {}
  bool has_begun() const { return is_reached(words_.begun); }
  bool has_ended() const { return is_reached(words_.ended); }
  Status advance(Progress* progress) override;

 private:
  bool is_reached(uint32_t& word) const {
    const uint32_t now = std::atomic_ref<uint32_t>(word).load(std::memory_order_acquire);
    return static_cast<int32_t>(now - number_) >= 0;
  }

  DeviceWords& words_;
  const uint32_t number_;
  const std::function<Status()> check_;
  std::optional<Deadline> check_at_;
};

}  // namespace libcomm
