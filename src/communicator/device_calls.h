// DeviceCalls: collectives on GPU memory that kernels of the ranks do with each other, without the
// host: the executor of GPUs (src/device/kernels/execute_step.h).
//
// A call is a kernel on its stream and nothing else. The engine only looks on, so that operations
// keep their order and a wait ends: when the communicator has failed it tells the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <unordered_map>

#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/communicator/device_execution.h"
#include "src/communicator/program_memory.h"
#include "src/device/memory.h"
#include "src/execute/device_program.h"
#include "src/plan/algorithm_choice.h"
#include "transports/cuda/slot_areas.h"

namespace libcomm {

class DeviceCalls {
 public:
  ~DeviceCalls();
  // A program that is ready to run, any number of times.
  class Program {
   public:
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

   private:
    friend class DeviceCalls;
    Program() = default;
    std::byte* memory() const { return piece_ ? piece_.data() : own_.data(); }
    DeviceProgram program_;  // without its steps, which are in the pinned memory
    ProgramMemory::Piece piece_;
    cuda::PinnedBuffer own_;  // where that is too small, or all of it in use
    size_t operands_at_ = 0, operand_count_ = 0;
    std::shared_ptr<std::atomic<size_t>> pinned_bytes_;  // of own_, of all programs
  };

  // How large a call may be where the executor is chosen by the library.
  static constexpr size_t kMostBytes = size_t{256} << 10;
  // Of an AllToAllV, whose size no rank knows, the blocks of more bytes are messages instead: both
  // ends of a block know how large it is.
  size_t most_block_bytes() const;

  // Collective. `memory` is what `ranks` have agreed on. Null where COMM_GPU_EXECUTOR, the GPUs of
  // the ranks or the memory do not allow it, some rank does not want it, or a trial of it went
  // wrong (which the log warns of), at all ranks alike. `has_failed`: the group has, so that nobody
  // waits any more. Errors: those of the bootstrap.
  static Result<std::shared_ptr<DeviceCalls>> agree(
      Bootstrap& bootstrap, const cuda::Driver& driver, cuda::PeerMemory& memory,
      std::span<const cuda::GpuRank> ranks, const Knobs& knobs, int min_lanes, int max_lanes,
      bool wanted, const std::function<bool()>& has_failed);

  // The program of a call that goes this way, null if it does not: the same at all ranks. For the
  // thread of the calls, with the context of the memory current. kInvalidArgument: a buffer to
  // reduce is not aligned.
  Result<std::shared_ptr<const Program>> find(const Operation& operation);

  // Puts the kernel on the stream. It calls itself `number`. `scalar`: where it finds that of the
  // operation, in pinned memory; null: it is operation.scalar. `repeats`: it is captured.
  Status launch(const Program& program, const Operation& operation, const void* scalar,
                uint32_t number, DeviceWords* words, const uint32_t* abort, bool repeats,
                cuda::CUstream stream) const;

  size_t device_bytes() const;
  size_t pinned_bytes() const;

 private:
  struct Key {
    Signature signature;
    std::shared_ptr<const BlockTables> tables;
    bool operator==(const Key& other) const;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Known {
    std::shared_ptr<const Program> program;  // null: it does not go so
    uint64_t used = 0;                       // when last, in calls of find()
  };
  using NeedsKey = std::tuple<Collective, const Algorithm*, int, int>;  // lanes, root
  struct Trial;
  DeviceCalls(const cuda::Driver& driver, const cuda::PeerMemory& memory, int rank);
  bool goes_so(const Operation& operation) const;
  Result<std::shared_ptr<const Program>> make(const Operation& operation);
  Result<std::shared_ptr<const Program>> finish(DeviceProgram&& program);
  const DeviceNeeds& needs_of(const Algorithm& algorithm, const ScheduleRequest& request);
  // False: there is none. `for_its_piece`: of those that no work holds.
  bool forget_oldest(bool for_its_piece);
  // Of agree(): do kernels get what others send? What may fail at one rank alone comes in steps
  // that all ranks agree on. end_trial() ends what begin_trial() has put on the GPU: at once, and
  // whatever came, unless `all_begun`.
  Status prepare_trial();
  Status begin_trial(cuda::PeerMemory& memory, bool by_lines);
  Status end_trial(cuda::PeerMemory& memory, bool by_lines, bool all_begun,
                   const std::function<bool()>& has_failed);

  const cuda::Driver& driver_;
  const cuda::CUcontext context_;
  const std::shared_ptr<const cuda::Kernels> kernels_;
  const int rank_;
  bool always_ = false;
  AlgorithmChoice forced_;
  bool with_threads_ = false;  // some process has several ranks
  std::unique_ptr<cuda::SlotAreas> areas_;
  std::shared_ptr<ProgramMemory> memory_;
  std::unordered_map<Key, Known, KeyHash> programs_;
  std::map<NeedsKey, DeviceNeeds> needs_;
  uint64_t calls_ = 0;
  std::unique_ptr<Trial> trial_;  // its memory may be freed with the rest only
  std::shared_ptr<std::atomic<size_t>> pinned_bytes_ = std::make_shared<std::atomic<size_t>>(0);
};

}  // namespace libcomm
