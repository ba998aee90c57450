// Communicator: everything one rank has. Owns the bootstrap, the transports and their channels, the
// plans, the engine thread and the failure state.
//
// Threads: operations are issued by one thread at a time. abort(), revoke(), state() and stats()
// may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/base/knobs.h"
#include "src/bootstrap/bootstrap.h"
#include "src/communicator/channel_table.h"
#include "src/communicator/device_calls.h"
#include "src/communicator/engine.h"
#include "src/communicator/gpu_work.h"
#include "src/communicator/host_stream.h"
#include "src/communicator/introduction.h"
#include "src/communicator/lent_memory.h"
#include "src/communicator/merged_calls.h"
#include "src/communicator/operation_loans.h"
#include "src/communicator/quick_calls.h"
#include "src/communicator/setup_turns.h"
#include "src/execute/board_layout.h"
#include "src/execute/p2p.h"
#include "src/execute/reduce_pool.h"
#include "src/execute/wait.h"
#include "src/plan/planner.h"
#include "transports/cuda/peer_memory.h"
#include "transports/shm/group.h"

namespace libcomm {

// What a caller may ask for; -1 and "" leave it to the library.
struct CommOptions {
  bool blocking = true;
  int min_lanes = -1;
  int max_lanes = -1;
  std::optional<bool> no_kernels;  // COMM_CTA_POLICY_ZERO; empty: as COMM_CTA_POLICY says
  std::string net_name;
  std::string name;
};

struct MemoryStats {
  size_t host_bytes = 0;
  size_t pinned_bytes = 0;  // for GPUs
  int channels = 0;
  int sockets = 0;
  int threads = 0;
};

// commRedOpCreatePreMulSum's operators.
struct PreMulOp {
  bool live = false;
  DataType type = DataType::kFloat32;
  std::array<unsigned char, 8> scalar{};
  const void* deferred = nullptr;  // read when the operation is called, instead of `scalar`
};

class Communicator {
 public:
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // Joins a group; collective, blocks. `cancel` ends the wait from another thread.
  static Result<std::shared_ptr<Communicator>> create(const Rendezvous& rendezvous, int rank,
                                                      int nranks, const CommOptions& options,
                                                      const std::atomic<bool>* cancel = nullptr);
  // Its place among this communicator's set-up calls, to be taken when the call is made.
  SetupTurn take_setup_turn() { return setup_turns_.take(); }
  // commSplit; collective over this communicator. Null when color is negative. `cancel` ends the
  // wait from another thread, here and below, and outlives what is made.
  Result<std::shared_ptr<Communicator>> split(int color, int key, const CommOptions& options,
                                              SetupTurn turn,
                                              const std::atomic<bool>* cancel = nullptr);
  // commShrink; called by the ranks that stay. `excluded` may be in any order.
  Result<std::shared_ptr<Communicator>> shrink(std::span<const int> excluded,
                                               const CommOptions& options,
                                               const std::atomic<bool>* cancel = nullptr);

  int rank() const { return rank_; }
  int nranks() const { return nranks_; }
  const CommOptions& options() const { return options_; }
  const Knobs& knobs() const { return *knobs_; }

  // Runs one operation in the calling thread, after what is queued. The fast path.
  Status run(const Operation& operation);

  // The call as it was done before, if it can be done so now: null while the engine exists, or when
  // the communicator cannot be used, or when the call goes by windows for once.
  const QuickCall* find_quick(const QuickKey& key) const {
    const QuickCall* quick = runs_in_caller() ? quick_calls_.find(key) : nullptr;
    const bool elsewhere = quick != nullptr && quick->call.tells_reach &&
                           board_state_.reachable.contains(quick->call.kind);
    return elsewhere ? nullptr : quick;
  }
  // Does it; the buffers are ones that it accepts. As run().
  Status run_quick(const QuickCall& quick, const void* in, void* out);
  bool checks_buffers() const { return checks_buffers_; }
  // Nothing is queued, and nothing keeps the communicator from being used.
  bool runs_in_caller() const {
    return !failure_.failed() && !finalized_.load(std::memory_order_acquire) &&
           !has_engine_.load(std::memory_order_acquire);
  }
  // Can a message of so many elements, to or from this peer, be carried out by run_quick()? False
  // when anything about it needs words. `type` is the caller's.
  bool is_quick(const void* buffer, size_t count, int type, int peer);
  // Carries out messages that is_quick() was asked about, while runs_in_caller(). As run().
  Status run_quick(std::span<const MessageCall> calls);

  // Carries out the operations of a group in the calling thread, after what is queued; for groups
  // of one communicator.
  Status run(std::span<const Operation> operations);
  // Waits for what the engine still has to do; the failure of the communicator, if any.
  Status drain();
  // Queues operations on the engine thread, to be run in their turns.
  Status submit(std::vector<Operation> operations, std::shared_ptr<StreamTurns> turns);

  // Operations on GPU memory, or in the order of CUDA streams, as a work to be enqueued; `alone` if
  // it is the only one of its group.
  // kInvalidArgument: an earlier one was on another GPU.
  Result<std::shared_ptr<GpuWork>> prepare(std::span<const Operation> operations,
                                           const GpuPlace& gpu, std::vector<cuda::CUstream> streams,
                                           bool alone);
  // How many of its ranks are in this process.
  int ranks_in_process() const;
  // A graph has operations of it: whenever it is launched, the engine gets work.
  bool has_graphs() const { return gpu_queue_ && gpu_queue_->has_graphs(); }
  // The GPU of its operations, or the one that was current when it was made; -1: none.
  int gpu() const { return gpu_.load(std::memory_order_relaxed); }
  // It is no GPU memory. Cheap for the buffers of the last few calls.
  bool is_host_memory(const void* address) {
    const size_t place = host_place(address);
    const bool known = host_buffers_[place] == address || host_buffers_[place ^ 1] == address;
    return (known && cuda::Driver::found() == nullptr) || look_for_host_memory(address);
  }

  // What this rank's waits need; for driving several communicators' batches from one thread.
  WaitContext wait_context() const;
  // An operation failed here: decides on the first reason, tells the other ranks, returns it.
  Status fail(Status status);
  // Looks for peers that are in a different call with the same number; slow.
  Status check_mismatch();
  // An operation has waited for too long: the network's failure, if that is why. Slow.
  Status inquire();
  // Of an execution that is stuck: has a rank left that it waits for? Slow.
  Status check_departures(Execution& execution);

  // The first failure, kInProgress while the engine works for a non-blocking communicator, or OK.
  Status state() const;
  // Before any operation: kInvalidUsage after finalize or revoke, the first failure after one.
  Status check_usable() const;

  Status finalize();
  void abort(const std::string& why);
  Status revoke();
  bool finalized() const { return finalized_.load(std::memory_order_acquire); }
  bool revoked() const { return revoked_.load(std::memory_order_acquire); }

  // The operator's index. `now`: read *scalar at once, else when an operation uses it.
  Result<int> create_op(DataType type, const void* scalar, bool now);
  Status destroy_op(int index);
  const PreMulOp* find_op(int index) const;

  // Collective: kInvalidUsage when the ranks do not agree on the size of a window. Where all ranks
  // have GPU memory that the others reach, all map it now. The window's number for keep_window(); 0
  // where nothing is kept.
  Result<uint64_t> agree_on_window(void* base, size_t size, SetupTurn turn);

  // commRegister and commWindowRegister: the memory stays where it is until taken back by its key.
  void lend(const void* key, void* base, size_t bytes) {
    if (lent_memory_) lent_memory_->add(key, base, bytes);
  }
  void keep_window(uint64_t number, const void* key, void* base, size_t bytes) {
    gpu_windows_.name(number, key);
    lend(key, base, bytes);
  }
  void take_back(const void* key) {
    gpu_windows_.remove(key);
    if (!lent_memory_) return;
    lent_memory_->remove(key);
    if (rdma_) rdma_->drop_ended_memory();
  }

  MemoryStats stats() const;
  Planner& planner() { return *planner_; }

 private:
  friend class ActiveOperation;
  friend class Batch;
  friend class GpuMeeting;
  friend class GpuMessages;
  friend class GpuWork;
  Communicator() = default;
  Status start_engine();
  Status run_on_engine(std::span<const Operation> operations);
  void end_gpu_queue();
  bool wants_no_kernels() const;
  Result<uint64_t> share_window(void* base, size_t size);
  bool look_for_host_memory(const void* address);
  static size_t host_place(const void* address) {
    return reinterpret_cast<uintptr_t>(address) * 0x9e3779b97f4a7c15u >> 58;
  }
  // Everything after the group has met: facts, transports, planner.
  static Result<std::shared_ptr<Communicator>> assemble(std::shared_ptr<Communicator> communicator,
                                                        const CommOptions& options);
  Result<std::shared_ptr<Communicator>> derive(std::span<const int> members, uint64_t tag,
                                               const CommOptions& options,
                                               const std::atomic<bool>* cancel);
  // Whether the ranks use each other's GPU memory in place, and with what.
  Status meet_gpus(std::span<const Introduction> all, bool one_board);
  void on_news(News news, const Status& reason);
  // Working memory of the running operation.
  Status reserve_scratch(size_t bytes);
  // To whom the buffers of an operation are lent.
  OperationLoans::To lends_to() const;
  // What carries out messages; made by the first of them.
  P2pBatch& messages();
  // On the engine's thread; lets no exception out.
  Status run_queued(std::span<const Operation> operations);
  int quick_looks() const;
  // Drives one execution to its end.
  Status drive(Execution& execution);

  int rank_ = 0;
  int nranks_ = 1;
  CommOptions options_;
  std::shared_ptr<const Knobs> knobs_;
  FailureState failure_;
  std::atomic<bool> revoked_{false};
  std::atomic<bool> finalized_{false};
  size_t departures_seen_ = 0;  // by check_departures()

  std::unique_ptr<Bootstrap> bootstrap_;
  std::vector<PeerFacts> facts_;
  ShmGroup shm_;
  std::unique_ptr<Transport> tcp_;
  std::unique_ptr<Transport> rdma_;
  size_t lends_from_ = SIZE_MAX;             // bytes of a buffer, with rdma_
  std::vector<char> rdma_peers_;             // by rank: whether it is reached so
  std::shared_ptr<LentMemory> lent_memory_;  // with rdma_
  std::unique_ptr<ChannelTable> channels_;
  std::unique_ptr<Planner> planner_;
  WaitPolicy wait_policy_;
  mutable Crowding crowding_;
  std::unique_ptr<ReducePool> reduce_pool_;  // with COMM_NTHREADS

  BoardState board_state_;
  BoardView board_view_;
  QuickCalls quick_calls_;
  bool checks_buffers_ = true;
  uint64_t operations_ = 0;  // collectives begun
  Signature current_;        // of the last collective begun
  std::optional<P2pBatch> messages_;
  MergedCalls merged_calls_;
  SetupTurns setup_turns_;
  uint64_t splits_ = 0;  // changed in turn
  std::mutex shrinks_mutex_;
  std::map<uint64_t, uint64_t> shrinks_;  // by who is left out
  AlignedBuffer scratch_;
  std::atomic<size_t> scratch_size_{0};
  std::vector<PreMulOp> ops_;

  // Of quick calls, in a process without CUDA, each in its host_place() or the one beside it.
  std::array<const void*, 64> host_buffers_{};
  std::atomic<int> gpu_{-1};
  std::unique_ptr<cuda::PeerMemory> peer_memory_;  // used by the engine's thread
  GpuWindows gpu_windows_;                         // with peer_memory_
  std::shared_ptr<DeviceCalls> device_calls_;      // used by the thread of the calls
  std::vector<uint64_t> gpu_messages_sent_;        // in place, by rank; the engine's thread's
  std::shared_ptr<GpuQueue> gpu_queue_;
  std::mutex kernels_mutex_;
  GpuQueue* kernels_of_ = nullptr;  // gpu_queue_ where there is an executor; with kernels_mutex_
  std::atomic<size_t> gpu_pinned_bytes_{0};

  std::unique_ptr<Engine> engine_;
  std::atomic<bool> has_engine_{false};
  std::atomic<int> queued_{0};  // works on host memory that the engine has still to do
};

// Drives several executions, each with its communicator, until all are done; the first failure ends
// all.
struct DrivenBatch {
  Communicator* communicator;
  Execution* execution;
};
Status drive_all(std::span<const DrivenBatch> batches);

}  // namespace libcomm
