#include "src/communicator/gpu_work.h"

#include <cstring>

#include "src/communicator/communicator.h"
#include "src/communicator/engine.h"
#include "src/device/scopes.h"
#include "src/execute/peer_kernels.h"

// On the thread of the call: how the operations are cut, and put on their streams. What follows, on
// the driver's thread and on the engine's, is in gpu_work_run.cc.
namespace libcomm {
namespace {

using namespace cuda;  // NOLINT: the driver's names are long enough

// Ranks of one process that may wait in streams of their own: each wait holds a hardware queue, of
// which a context has few (CUDA_DEVICE_MAX_CONNECTIONS, 8 where it is not set).
constexpr int kMostWaitingStreams = 4;

// The same at all ranks.
bool moves_bytes(const Operation& operation) {
  const auto any = [](const BlockTable& table) {
    return std::any_of(table.counts.begin(), table.counts.end(),
                       [](size_t count) { return count > 0; });
  };
  return operation.count > 0 || any(operation.in_table()) || any(operation.out_table());
}

}  // namespace

Result<std::shared_ptr<GpuWork>> GpuWork::create(Communicator& communicator, Engine& engine,
                                                 std::shared_ptr<GpuQueue> queue,
                                                 std::span<const Operation> operations,
                                                 std::vector<CUstream> streams, bool alone) {
  std::shared_ptr<GpuWork> work(new GpuWork(communicator, engine, std::move(queue)));
  COMM_TRY(work->prepare(operations, std::move(streams), alone));
  return work;
}

Status GpuWork::look_at_streams(CUgraph* graph) {
  const Driver& driver = queue_->driver_;
  uint64_t first_id = 0;
  bool may_hold_up = false;  // what waits on one of them holds up other ranks' streams
  for (size_t i = 0; i < streams_.size(); ++i) {
    int capturing = kNotCapturing;
    uint64_t id = 0;
    const void* nodes = nullptr;
    size_t count = 0;
    CUgraph its_graph = nullptr;
    COMM_TRY(driver.check(
        driver.stream_capture_info(streams_[i], &capturing, &id, &its_graph, &nodes, &count),
        "looking whether the stream captures a graph"));
    if (capturing == kCaptureIsInvalid)
      return error(Code::kInvalidUsage,
                   "the stream's capture was made invalid by an earlier call; end it "
                   "(cudaStreamEndCapture) and begin again");
    if (capturing != kCapturing) id = 0;
    if (i == 0) {
      first_id = id;
      *graph = its_graph;
      captured_ = capturing == kCapturing;
      capture_ = id;
    } else if (id != first_id) {
      return error(Code::kInvalidUsage,
                   "the streams of one group do not capture the same graph; let those that are not "
                   "captured wait for an event of the one that is, or use two groups");
    }
    unsigned flags = 0;
    if (!captured_)
      COMM_TRY(driver.check(driver.stream_flags(streams_[i], &flags), "cuStreamGetFlags"));
    may_hold_up = may_hold_up || (flags & kStreamNonBlocking) == 0;
  }
  const int together = communicator_.ranks_in_process();
  waits_here_ = !captured_ && together > 1 && (may_hold_up || together > kMostWaitingStreams);
  return Status::ok();
}

Status GpuWork::prepare(std::span<const Operation> operations, std::vector<CUstream> streams,
                        bool alone) {
  const Driver& driver = queue_->driver_;
  streams_ = std::move(streams);
  const ContextScope scope(driver, queue_->gpu_.context);
  COMM_TRY(scope.status());
  CUgraph graph = nullptr;
  COMM_TRY(look_at_streams(&graph));
  place_.rank = communicator_.rank();
  place_.nranks = communicator_.nranks();
  place_.slot_bytes = queue_->slot_bytes_;
  place_.takes_gpu_memory = communicator_.rdma_peers_;
  place_.messages_in_place = communicator_.peer_memory_ != nullptr;
  COMM_TRY(choose_paths(operations, alone));
  std::byte* base = queue_->pinned_.data();
  size_t slot = queue_->slot_bytes_;
  if (captured_) {
    // No more than it needs, since it keeps it.
    slot = kPinnedLine;
    const auto make_room = [&](const std::vector<Stage>& stages) {
      for (const Stage& stage : stages) slot = std::max(slot, in_lines(stage.bytes));
    };
    const std::vector<Stage> stages = plan_stages(operations, place_);
    make_room(stages);
    StagingPlace staged = place_;
    staged.paths = {};
    for (const Stage& stage : stages)
      if (stage.kind == Stage::Kind::kLeave)
        make_room(plan_stages({&operations[stage.direct], 1}, staged));
    const OutsideCapture outside(driver);
    COMM_ASSIGN(own_pinned_,
                PinnedBuffer::take(driver, queue_->gpu_.context,
                                   kPinnedHead + std::min<size_t>(stages.size(), 2) * slot));
    base = own_pinned_.data();
    std::memset(base, 0, kPinnedHead);
  }
  word_ = reinterpret_cast<uint32_t*>(base);
  device_words_ = reinterpret_cast<DeviceWords*>(base + kDeviceWordsAt);
  arguments_ = reinterpret_cast<LateArguments*>(base + kArgumentsAt);
  place_.slots[0] = base + kPinnedHead;
  place_.slots[1] = place_.slots[0] + slot;
  stages_ = plan_stages(operations, place_);
  // Apart from the stages, which may be so many between two launches that their numbers go round.
  uint32_t launches = captured_ ? 0 : queue_->launched_;
  for (const Stage& stage : stages_)
    launch_numbers_.push_back(stage.kind == Stage::Kind::kExecute ? ++launches : launches);
  if (place_.messages_in_place) COMM_TRY(offer_messages());
  if (captured_) return give_to_graph(graph);
  first_ = queue_->issued_;
  queue_->issued_ += static_cast<uint32_t>(stages_.size());
  queue_->launched_ = launches;
  return Status::ok();
}

// Which calls go by peer kernels, and what this rank has to say of them. The same at all ranks:
// each has buffers of the same kind.
Status GpuWork::choose_paths(std::span<const Operation> operations, bool alone) {
  PeerMemory* memory = communicator_.peer_memory_.get();
  if (memory == nullptr) return Status::ok();
  queue_->kernels_ = memory->kernels();
  on_its_gpu_ = memory->context() == queue_->gpu_.context;
  COMM_TRY(choose_executor(operations));
  const auto is_direct = [&](const Operation& operation) {
    const auto i = static_cast<size_t>(&operation - operations.data());
    return operation.on_gpu && has_peer_kernels(operation.collective) && moves_bytes(operation) &&
           (programs_.empty() || programs_[i] == nullptr);
  };
  if (programs_.empty() && std::none_of(operations.begin(), operations.end(), is_direct))
    return Status::ok();
  const OutsideCapture outside(queue_->driver_);
  GpuMeeting meeting(communicator_, *memory);
  const uint64_t exports = memory->exports();
  operations_.assign(operations.begin(), operations.end());
  cards_.resize(operations.size());
  window_copies_.resize(operations.size());
  paths_.assign(operations.size(), StagingPlace::Path::kStaged);
  for (size_t i = 0; i < operations.size(); ++i) {
    const Operation& operation = operations[i];
    if (!programs_.empty() && programs_[i]) paths_[i] = StagingPlace::Path::kExecutor;
    if (!is_direct(operation)) continue;
    if (on_its_gpu_) cards_[i] = meeting.describe(operation);
    if (communicator_.wants_no_kernels() && cards_[i].reachable != 0)
      window_copies_[i] = communicator_.gpu_windows_.copies(operation, place_.rank, place_.nranks,
                                                            &cards_[i].guess);
    // What others cannot reach may be given up right after the call, in the order of its stream (a
    // pool's): so the copies are put there too, or the call returns when they are over. Stages of
    // its own would not be alike those of other works on the stream.
    const bool apart = cards_[i].reachable == 0;
    const bool own = apart && alone && communicator_.ranks_in_process() == 1;
    paths_[i] = own ? StagingPlace::Path::kOwnStages : StagingPlace::Path::kPeers;
    waits_here_ = waits_here_ || (apart && !own && !captured_);
  }
  // The first use of memory by other processes is the one case in which their engines, and here
  // this rank's, call the driver before the stream can go on: no later call of this thread may be
  // waiting in it for the stream.
  waits_here_ = waits_here_ || (memory->exports() != exports && !captured_);
  place_.paths = paths_;
  return Status::ok();
}

// Which calls go by the executor: it depends on nothing that a rank knows alone.
Status GpuWork::choose_executor(std::span<const Operation> operations) {
  DeviceCalls* calls = communicator_.device_calls_.get();
  if (calls == nullptr) return Status::ok();
  std::vector<std::shared_ptr<const DeviceCalls::Program>> programs;
  bool any = false;
  for (const Operation& operation : operations) {
    COMM_ASSIGN(auto program, calls->find(operation));
    any = any || program != nullptr;
    programs.push_back(std::move(program));
  }
  if (!any) return Status::ok();
  if (!on_its_gpu_)
    return communicator_.fail(error(
        Code::kInvalidUsage,
        "this call is on GPU {}, but the communicator was made for another one or in another "
        "CUDA context: choose the GPU before commInitRank (cudaSetDevice) or in commInitAll's "
        "list, or set COMM_GPU_EXECUTOR=NEVER on all ranks",
        queue_->gpu_.ordinal));
  programs_ = std::move(programs);
  place_.most_executed = calls->most_block_bytes();
  return Status::ok();
}

// Where the memory of what is sent in place is.
Status GpuWork::offer_messages() {
  offers_.resize(stages_.size());
  for (size_t i = 0; i < stages_.size(); ++i) {
    Stage& stage = stages_[i];
    if (stage.kind != Stage::Kind::kMessages || stage.round > 0) continue;
    COMM_TRY(offer(stage, &offers_[i]));
    // What is received in another context is copied by the engine, which needs the driver.
    waits_here_ = waits_here_ || (!on_its_gpu_ && stage.rounds > 0 && !captured_);
  }
  return Status::ok();
}

Status GpuWork::offer(Stage& stage, std::vector<ExportedMemory>* cards) {
  PeerMemory& memory = *communicator_.peer_memory_;
  const ContextScope scope(queue_->driver_, memory.context());
  COMM_TRY(scope.status());
  const OutsideCapture outside(queue_->driver_);
  cards->resize(stage.operations.size());
  std::vector<size_t> apart;
  size_t bytes_apart = 0;
  const auto bytes_of = [&](size_t i) {
    return stage.operations[i].count * size_of(stage.operations[i].type);
  };
  for (size_t i = 0; i < stage.operations.size(); ++i) {
    const Operation& operation = stage.operations[i];
    if (!operation.on_gpu || !operation.is_send) continue;
    if (memory.describe(operation.in, bytes_of(i), &(*cards)[i])) continue;
    apart.push_back(i);
    bytes_apart += in_lines(bytes_of(i));
  }
  if (apart.empty()) return Status::ok();
  // Those of earlier works are used in the order of the works.
  DeviceBuffer& copies = captured_ ? own_copies_ : queue_->copies_;
  if (copies.size() < bytes_apart) {
    const size_t bytes = std::max(bytes_apart, 2 * copies.size());
    outgrown_.push_back(std::move(copies));
    COMM_ASSIGN(copies, DeviceBuffer::allocate(queue_->driver_, memory.context(), bytes));
  }
  std::byte* at = copies.data();
  for (const size_t i : apart) {
    if (!memory.describe(at, bytes_of(i), &(*cards)[i]))
      return error(Code::kSystem, "other ranks cannot reach GPU memory of the library's own");
    stage.in.push_back({at, stage.operations[i].in, bytes_of(i)});
    at += in_lines(bytes_of(i));
  }
  return Status::ok();
}

bool GpuWork::follows_at(size_t index) const {
  if (index >= stages_.size()) return false;
  const Stage& stage = stages_[index];
  return stage.kind == Stage::Kind::kLeave || stage.kind == Stage::Kind::kExecute ||
         (index > 0 && stages_[index - 1].kind == Stage::Kind::kMessages);
}

GpuWork::~GpuWork() {
  if (in_graph_) PendingWork::graph_gone();
}

// The graph, and what is instantiated of it, keeps the work.
Status GpuWork::give_to_graph(CUgraph graph) {
  const Driver& driver = queue_->driver_;
  for (size_t i = 0; i < stages_.size(); ++i) starts_.push_back({nullptr, this, i});
  // In a thread in which the driver must not be called; nothing that a work has calls it.
  const auto drop = [](void* kept) { delete static_cast<std::shared_ptr<GpuWork>*>(kept); };
  auto kept = std::make_unique<std::shared_ptr<GpuWork>>(shared_from_this());
  CUuserObject object = nullptr;
  COMM_TRY(driver.check(driver.user_object_create(&object, kept.get(), drop, 1, kNoDestructorSync),
                        "cuUserObjectCreate"));
  (void)kept.release();
  PendingWork::graph_made();
  in_graph_ = true;
  queue_->has_graphs_ = true;
  return driver.check(driver.graph_retain(graph, object, 1, kMoveReference),
                      "cuGraphRetainUserObject");
}

void GpuWork::begin() {
  PendingWork::begin();
  engine_.submit([self = shared_from_this()] {
    self->run();
    PendingWork::end();
    GpuQueue::end_stale();
  });
}

Status GpuWork::enqueue(std::span<const std::shared_ptr<GpuWork>> works) {
  Status status;
  try {
    for (const auto& work : works)
      if (!work->captured_) work->begin();
    status = put_on_streams(works);
  } catch (const std::exception& problem) {
    status = error(Code::kSystem, "cannot put an operation on its stream: {}", problem.what());
  }
  if (status) return status;
  // The other ranks wait for this one, and the engines for the streams. Nobody waits for a graph.
  for (const auto& work : works) {
    if (work->captured_) continue;
    work->queue_->lost_ = true;
    status = work->communicator_.fail(status);
  }
  return status;
}

Status GpuWork::put_on_streams(std::span<const std::shared_ptr<GpuWork>> works) {
  size_t most = 0;
  for (const auto& work : works) most = std::max(most, work->stages_.size());
  const auto all = [&](auto&& each) -> Status {
    for (const auto& work : works) {
      const ContextScope scope(work->queue_->driver_, work->queue_->gpu_.context);
      COMM_TRY(scope.status());
      COMM_TRY(each(*work));
    }
    return Status::ok();
  };
  const auto begin = [](GpuWork& work, size_t index) {
    return index < work.stages_.size() ? work.begin_stage(index) : Status::ok();
  };
  const auto end = [](GpuWork& work, size_t index) {
    return index < work.stages_.size() && !work.ends_last(index) ? work.end_stage(index)
                                                                 : Status::ok();
  };
  COMM_TRY(all([](GpuWork& work) { return work.join_streams(); }));
  for (size_t i = 0; i <= most; ++i) {
    // What a kernel does must be over when the next stage begins, and others may wait for that;
    // copies overlap with it.
    const bool follows = std::any_of(works.begin(), works.end(),
                                     [&](const auto& work) { return work->follows_at(i); });
    if (!follows) COMM_TRY(all([&](GpuWork& work) { return begin(work, i); }));
    const auto go_on = [&](GpuWork& work) -> Status {
      if (i > 0) COMM_TRY(end(work, i - 1));
      return follows ? begin(work, i) : Status::ok();
    };
    COMM_TRY(all(go_on));
  }
  COMM_TRY(all([&](GpuWork& work) {
    const size_t last = work.stages_.size() - 1;
    return !work.stages_.empty() && work.ends_last(last) ? work.end_stage(last) : Status::ok();
  }));
  return all([](GpuWork& work) { return work.finish(); });
}

Status GpuWork::join_streams() {
  const Driver& driver = queue_->driver_;
  for (size_t i = 1; i < streams_.size(); ++i) {
    COMM_TRY(driver.check(driver.event_record(queue_->joint_.get(), streams_[i]), "cuEventRecord"));
    COMM_TRY(driver.check(driver.stream_wait_event(streams_.front(), queue_->joint_.get(), 0),
                          "cuStreamWaitEvent"));
  }
  if (captured_ && capture_ != queue_->last_capture_) return Status::ok();
  // Of one graph too, or its streams would do them at once.
  const Event& before = captured_ ? queue_->captured_ : queue_->used_;
  return driver.check(driver.stream_wait_event(streams_.front(), before.get(), 0),
                      "cuStreamWaitEvent");
}

Status GpuWork::copy(std::span<const StagedCopy> copies) {
  const Driver& driver = queue_->driver_;
  for (const StagedCopy& each : copies)
    COMM_TRY(driver.check(
        driver.copy_async(number_of(each.to), number_of(each.from), each.bytes, streams_.front()),
        "copying from or to GPU memory"));
  return Status::ok();
}

Status GpuWork::begin_stage(size_t index) {
  const Driver& driver = queue_->driver_;
  COMM_TRY(copy(stages_[index].in));
  if (tells_by_kernel(index)) return execute(index);
  if (captured_) {
    COMM_TRY(driver.check(driver.host_function(streams_.front(), on_start, &starts_[index]),
                          "cuLaunchHostFunc"));
    return stages_[index].kind == Stage::Kind::kExecute ? execute(index) : Status::ok();
  }
  auto start = std::make_unique<Start>(Start{shared_from_this(), this, index});
  COMM_TRY(driver.check(driver.host_function(streams_.front(), on_start, start.get()),
                        "cuLaunchHostFunc"));
  (void)start.release();
  return Status::ok();
}

Status GpuWork::end_stage(size_t index) {
  const Driver& driver = queue_->driver_;
  const Stage& stage = stages_[index];
  // A kernel is over when the stream comes to this. But a graph that begins again starts all words
  // anew, and the engine must have seen the end of its last kernel by then; where all stages are
  // kernels, it sees the next one's.
  const bool engine_first = captured_ && index + 1 == stages_.size() && has_stages_of_engine();
  const bool is_over = stage.kind == Stage::Kind::kExecute && !engine_first;
  if (waits_here_)
    await_word(done_value(index));
  else if (!is_over)
    COMM_TRY(driver.check(driver.stream_wait_value(streams_.front(), number_of(word_),
                                                   done_value(index), kWaitGreaterOrEqual),
                          "cuStreamWaitValue32"));
  if (stage.kind == Stage::Kind::kMessages && !stage.is_last()) {
    if (!on_its_gpu_) return Status::ok();
    return queue_->kernels_->copy_later(static_cast<int>(stage.segments), stage.largest,
                                        &arguments_->copies, communicator_.peer_memory_->max_ctas(),
                                        streams_.front());
  }
  const bool meets = stage.kind == Stage::Kind::kMeet && cards_[stage.direct].reachable != 0;
  return meets ? launch(stage) : copy(stage.out);
}

Status GpuWork::execute(size_t index) {
  const Stage& stage = stages_[index];
  const size_t call = stage.direct;
  const void* scalar = stage.scalars.empty() ? nullptr : stage.scalars.front().at;
  const auto* shared = reinterpret_cast<DeviceWords*>(queue_->pinned_.data() + kDeviceWordsAt);
  return communicator_.device_calls_->launch(*programs_[call], operations_[call], scalar,
                                             launch_numbers_[index], device_words_, &shared->abort,
                                             captured_, streams_.front());
}

// This rank's part in a meeting; the kernel finds out whether it has one.
Status GpuWork::launch(const Stage& stage) {
  if (window_copies_[stage.direct]) return copy(window_copies_[stage.direct]->copies);
  const Operation& operation = operations_[stage.direct];
  const PeerKernelSize size = peer_kernel_size(operation, place_.rank, place_.nranks);
  const int most = communicator_.peer_memory_->max_ctas();
  if (size.reduces)
    return queue_->kernels_->reduce_later(operation.type, size.bytes, &arguments_->reduction, most,
                                          streams_.front());
  return queue_->kernels_->copy_later(size.segments, size.bytes, &arguments_->copies, most,
                                      streams_.front());
}

Status GpuWork::finish() {
  const Driver& driver = queue_->driver_;
  for (size_t i = 1; i < streams_.size(); ++i) {
    COMM_TRY(
        driver.check(driver.event_record(queue_->joint_.get(), streams_.front()), "cuEventRecord"));
    COMM_TRY(driver.check(driver.stream_wait_event(streams_[i], queue_->joint_.get(), 0),
                          "cuStreamWaitEvent"));
  }
  if (captured_) queue_->last_capture_ = capture_;
  const Event& after = captured_ ? queue_->captured_ : queue_->used_;
  return driver.check(driver.event_record(after.get(), streams_.front()), "cuEventRecord");
}

}  // namespace libcomm
