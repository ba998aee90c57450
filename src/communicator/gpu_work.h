// GpuWork: operations on GPU memory, or on host memory in the order of a CUDA stream.
//
// On the caller's stream a stage (src/execute/staging.h) is: copies into pinned memory; a host
// function that tells the engine "begin"; a wait until the engine has written "done" into a word of
// pinned memory; copies out of it. The engine, which knows the works of its communicator in the
// order of the calls, runs each stage's operations on host memory when it may begin. So
//  - a call returns when this is in the stream, before anything has happened;
//  - the order of operations on a communicator is that of the calls, whatever the streams do;
//  - no kernel runs and nothing spins while ranks wait for each other, so that any number of ranks,
//    as threads or processes, can share a GPU. Ranks that are threads may even share the legacy
//    default stream: there it is the calling thread that waits, not the stream;
//  - the same commands can be captured into a graph: its work has staging memory of its own, and
//    the engine does it whenever the graph reaches it. It goes before a work whose stream has not
//    come to it, since that stream may be waiting for the graph. A program that launches graphs
//    orders them with its other operations of the communicator, by streams or events.
//
// Where the ranks reach each other's GPU memory (src/communicator/gpu_meeting.h), two stages stage
// nothing: after the first the stream has a kernel, whose arguments the engine has written by then
// into pinned memory, and the second ends when the kernels of all ranks are over. Messages go so
// too (src/communicator/gpu_messages.h), each copied by its receiver's kernel; what the receiver
// could not reach, the sender's stream first copies into GPU memory of the library. So the engine
// needs nothing of the driver, which may be waiting for the very stream in another thread, but for
// the first use of another process's memory and for calls that must be staged after all.
//
// Where the executor of GPUs does a call (src/communicator/device_calls.h), its stage is a kernel
// that waits for those of the other ranks; the engine looks on, and tells it to give up when the
// communicator has failed.
//
// Every wait of a stream ends: when the communicator has failed, the engine writes "done" for all
// that it will not do any more. What is in the outputs then is undefined.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "src/base/status.h"
#include "src/communicator/device_calls.h"
#include "src/communicator/gpu_meeting.h"
#include "src/communicator/gpu_messages.h"
#include "src/communicator/gpu_queue.h"
#include "src/communicator/gpu_windows.h"
#include "src/device/memory.h"
#include "src/execute/staging.h"

namespace libcomm {

class Communicator;
class Engine;

// What one group has for one communicator.
class GpuWork : public std::enable_shared_from_this<GpuWork> {
 public:
  // Cuts `operations` into stages, to be put on streams.front() when the other streams have come as
  // far. Nothing has happened when it fails, or when the work is not enqueued. The calls of one
  // communicator are made one after the other. `alone`: it is the only work of its group.
  // kInvalidUsage: some of the streams capture a graph and others do not, or another.
  static Result<std::shared_ptr<GpuWork>> create(Communicator& communicator, Engine& engine,
                                                 std::shared_ptr<GpuQueue> queue,
                                                 std::span<const Operation> operations,
                                                 std::vector<cuda::CUstream> streams, bool alone);
  // Puts the works of a group on their streams, stage by stage of all of them, so that they may
  // share a stream. On failure the communicators of all have failed.
  static Status enqueue(std::span<const std::shared_ptr<GpuWork>> works);
  ~GpuWork();
  // Calls without a stream cannot be in a graph.
  bool is_captured() const { return captured_; }

 private:
  struct Start {
    std::shared_ptr<GpuWork> work;  // null: the graph keeps it
    GpuWork* raw;
    size_t stage;
  };
  GpuWork(Communicator& communicator, Engine& engine, std::shared_ptr<GpuQueue> queue)
      : communicator_(communicator), engine_(engine), queue_(std::move(queue)) {}

  Status choose_paths(std::span<const Operation> operations, bool alone);
  Status choose_executor(std::span<const Operation> operations);
  Status launch(const Stage& stage);
  Status execute(size_t index);
  // Its kernel says itself when it begins.
  bool tells_by_kernel(size_t index) const {
    return stages_[index].kind == Stage::Kind::kExecute && !captured_;
  }
  bool has_started(size_t index);
  // What the stage before it has on the stream must be over when it begins.
  bool follows_at(size_t index) const;
  // Nothing but the stream waits for its end.
  bool ends_last(size_t index) const {
    return index + 1 == stages_.size() && stages_[index].kind == Stage::Kind::kMessages;
  }
  bool has_stages_of_engine() const {
    return std::any_of(stages_.begin(), stages_.end(),
                       [](const Stage& stage) { return stage.kind != Stage::Kind::kExecute; });
  }
  Status look_at_streams(cuda::CUgraph* graph);
  Status prepare(std::span<const Operation> operations, std::vector<cuda::CUstream> streams,
                 bool alone);
  Status offer_messages();
  Status offer(Stage& stage, std::vector<cuda::ExportedMemory>* cards);
  Status give_to_graph(cuda::CUgraph graph);
  void begin();
  static Status put_on_streams(std::span<const std::shared_ptr<GpuWork>> works);
  // The three below put commands on the stream.
  Status join_streams();
  Status begin_stage(size_t index);
  Status end_stage(size_t index);
  Status finish();
  Status copy(std::span<const StagedCopy> copies);

  // Called by the GPU's stream.
  static void on_start(void* argument) noexcept;
  void start(size_t stage) noexcept;
  void begin_again() noexcept;
  // On the engine's thread.
  void run() noexcept;
  Status run_stage(Stage& stage);
  Status run_meeting(const Stage& stage, std::byte* slot);
  Status run_leaving(const Stage& stage, std::byte* slot);
  Status run_messages(size_t index);
  Status run_execution(size_t index);
  DeviceExecution execution(size_t index);
  Status run_staged(const Operation& operation, std::byte* slot);
  void disarm() noexcept;
  Status await_start(size_t stage);
  static void run_next_graph(GpuQueue& queue);
  void write_word(uint32_t value) noexcept;
  void await_word(uint32_t value);
  uint32_t done_value(size_t stage) const { return first_ + static_cast<uint32_t>(stage) + 1; }

  Communicator& communicator_;
  Engine& engine_;
  const std::shared_ptr<GpuQueue> queue_;
  std::vector<cuda::CUstream> streams_;
  std::vector<Stage> stages_;
  bool captured_ = false;
  uint64_t capture_ = 0;           // of which graph
  bool in_graph_ = false;          // which keeps it
  bool waits_here_ = false;        // the calling thread waits for the engine
  cuda::PinnedBuffer own_pinned_;  // of a captured work
  StagingPlace place_;
  std::vector<Operation> operations_;  // where some are for peer kernels
  std::vector<StagingPlace::Path> paths_;
  std::vector<std::shared_ptr<const DeviceCalls::Program>> programs_;  // by call
  std::vector<GpuCard> cards_;
  std::vector<std::optional<GpuCopies>> window_copies_;  // in place of a kernel
  bool on_its_gpu_ = false;                              // where the peers' memory is reached
  cuda::DeviceBuffer own_copies_;                        // of a captured work
  std::vector<cuda::DeviceBuffer> outgrown_;             // an earlier stage may use them
  // By stage; of those in which messages begin.
  std::vector<std::vector<cuda::ExportedMemory>> offers_;
  cuda::LateArguments* arguments_ = nullptr;  // pinned
  std::vector<Start> starts_;                 // of a captured work
  uint32_t* word_ = nullptr;
  DeviceWords* device_words_ = nullptr;   // pinned
  uint32_t first_ = 0;                    // the word's value before the first stage
  std::vector<uint32_t> launch_numbers_;  // by stage: of the last kernel of the executor until then

  bool together_ = false;  // the last meeting was of ranks that reach each other; the engine's
  bool anew_ = false;      // some rank's copies of the call were the wrong ones; the engine's
  std::optional<GpuMessages> messages_;  // the engine's
  size_t started_ = 0;                   // stages that may begin; with the queue's mutex
};

}  // namespace libcomm
