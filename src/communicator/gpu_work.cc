#include "src/communicator/gpu_work.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "src/base/clock.h"
#include "src/base/fork_mutex.h"
#include "src/base/log.h"
#include "src/communicator/communicator.h"
#include "src/communicator/engine.h"
#include "src/device/scopes.h"

namespace libcomm {
namespace {

using namespace cuda;  // NOLINT: the driver's names are long enough

constexpr size_t kWordBytes = 64;  // a cache line for the word alone
constexpr std::chrono::milliseconds kLookAround{5};
// How often a work that waits for its stream asks whether the GPU still works.
constexpr int kLooksPerQuery = 40;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Queues of communicators that have ended, given up by the last graph in a thread in which the
// driver must not be called.
ForkMutex& g_burying = *new ForkMutex;
std::vector<std::shared_ptr<GpuQueue>>& g_buried = *new std::vector<std::shared_ptr<GpuQueue>>;

void bury(std::shared_ptr<GpuQueue> queue) {
  const std::lock_guard lock(g_burying);
  g_buried.push_back(std::move(queue));
}

void free_buried() {
  std::vector<std::shared_ptr<GpuQueue>> buried;
  {
    const std::lock_guard lock(g_burying);
    buried.swap(g_buried);
  }
}

}  // namespace

// ---- what works share ------------------------------------------------------------------------

Result<std::shared_ptr<GpuQueue>> GpuQueue::create(const Driver& driver, const GpuPlace& gpu,
                                                   size_t slot_bytes) {
  const OutsideCapture outside(driver);
  free_buried();
  std::shared_ptr<GpuQueue> queue(new GpuQueue(driver, gpu, round_up(slot_bytes, kWordBytes)));
  COMM_ASSIGN(queue->pinned_, PinnedBuffer::allocate(driver, kWordBytes + 2 * queue->slot_bytes_));
  std::memset(queue->pinned_.data(), 0, kWordBytes);
  COMM_ASSIGN(queue->used_, Event::create(driver));
  COMM_ASSIGN(queue->joint_, Event::create(driver));
  return queue;
}

GpuQueue::~GpuQueue() {
  const ContextScope scope(driver_, gpu_.context);
  const OutsideCapture outside(driver_);
  // The engine has written all its words: a stream that is not stuck in work of the application's
  // is through in no time.
  CUresult state = kNotReady;
  const auto until = Clock::now() + std::chrono::seconds(2);
  while (scope.status() && used_.get() != nullptr &&
         (state = driver_.event_query(used_.get())) == kNotReady && Clock::now() < until)
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  if (used_.get() == nullptr || state == kSuccess) return;
  log_info(Subsys::kAlloc, "{} bytes of pinned memory stay with the process: the GPU may use them",
           pinned_.size());
  pinned_.leak();
}

void GpuQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

// That of a graph that is gone, or new: freeing waits for the GPU, which a call must not.
Result<PinnedBuffer> GpuQueue::pinned_for_graph() {
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      PinnedBuffer buffer = std::move(spare_.back());
      spare_.pop_back();
      return buffer;
    }
  }
  return PinnedBuffer::allocate(driver_, pinned_.size());
}

// ---- a work: on the caller's thread ----------------------------------------------------------

Result<std::shared_ptr<GpuWork>> GpuWork::create(Communicator& communicator, Engine& engine,
                                                 std::shared_ptr<GpuQueue> queue,
                                                 std::span<const Operation> operations,
                                                 std::vector<CUstream> streams) {
  std::shared_ptr<GpuWork> work(new GpuWork(communicator, engine, std::move(queue)));
  COMM_TRY(work->prepare(operations, std::move(streams)));
  return work;
}

Status GpuWork::prepare(std::span<const Operation> operations, std::vector<CUstream> streams) {
  const Driver& driver = queue_->driver_;
  streams_ = std::move(streams);
  const ContextScope scope(driver, queue_->gpu_.context);
  COMM_TRY(scope.status());
  int capturing = kNotCapturing;
  CUgraph graph = nullptr;
  uint64_t id = 0;
  const void* nodes = nullptr;
  size_t count = 0;
  COMM_TRY(driver.check(
      driver.stream_capture_info(streams_.front(), &capturing, &id, &graph, &nodes, &count),
      "looking whether the stream captures a graph"));
  if (capturing == kCaptureIsInvalid)
    return error(Code::kInvalidUsage,
                 "the stream's capture was made invalid by an earlier call; end it "
                 "(cudaStreamEndCapture) and begin again");
  captured_ = capturing == kCapturing;
  // What waits on this stream holds up all ranks of the process that use it.
  const bool is_legacy = streams_.front() == nullptr || streams_.front() == kLegacyStream;
  waits_here_ = !captured_ && is_legacy && communicator_.shares_process();
  std::byte* base = queue_->pinned_.data();
  if (captured_) {
    const OutsideCapture outside(driver);
    COMM_ASSIGN(own_pinned_, queue_->pinned_for_graph());
    base = own_pinned_.data();
    std::memset(base, 0, kWordBytes);
  }
  word_ = reinterpret_cast<uint32_t*>(base);
  StagingPlace place;
  place.rank = communicator_.rank();
  place.nranks = communicator_.nranks();
  place.slots[0] = base + kWordBytes;
  place.slots[1] = place.slots[0] + queue_->slot_bytes_;
  place.slot_bytes = queue_->slot_bytes_;
  place.takes_gpu_memory = communicator_.rdma_peers_;
  stages_ = plan_stages(operations, place);
  if (captured_) return give_to_graph(graph);
  first_ = queue_->issued_;
  queue_->issued_ += static_cast<uint32_t>(stages_.size());
  engine_.submit([self = shared_from_this()] { self->run(); });
  return Status::ok();
}

// The graph, and what is instantiated of it, keeps the work.
Status GpuWork::give_to_graph(CUgraph graph) {
  const Driver& driver = queue_->driver_;
  for (size_t i = 0; i < stages_.size(); ++i) starts_.push_back({nullptr, this, i});
  const auto drop = [](void* kept) {
    // In a thread in which the driver must not be called: the pinned memory is freed elsewhere.
    std::unique_ptr<std::shared_ptr<GpuWork>> work(static_cast<std::shared_ptr<GpuWork>*>(kept));
    std::shared_ptr<GpuQueue> queue = (*work)->queue_;
    {
      const std::lock_guard lock(queue->mutex_);
      queue->spare_.push_back(std::move((*work)->own_pinned_));
      if (!queue->closed_) return;
    }
    work.reset();
    bury(std::move(queue));
  };
  auto kept = std::make_unique<std::shared_ptr<GpuWork>>(shared_from_this());
  CUuserObject object = nullptr;
  COMM_TRY(driver.check(driver.user_object_create(&object, kept.get(), drop, 1, kNoDestructorSync),
                        "cuUserObjectCreate"));
  (void)kept.release();
  return driver.check(driver.graph_retain(graph, object, 1, kMoveReference),
                      "cuGraphRetainUserObject");
}

Status GpuWork::enqueue(std::span<const std::shared_ptr<GpuWork>> works) {
  size_t most = 0;
  for (const auto& work : works) most = std::max(most, work->stages_.size());
  const auto all = [&](auto&& each) -> Status {
    for (const auto& work : works) {
      const ContextScope scope(work->queue_->driver_, work->queue_->gpu_.context);
      Status status = scope.status();
      if (status) status = each(*work);
      if (status) continue;
      // The others wait for this rank, and the engine for the stream.
      for (const auto& other : works) status = other->communicator_.fail(status);
      return status;
    }
    return Status::ok();
  };
  const auto end = [&](size_t index) {
    return all([&](GpuWork& work) {
      return index < work.stages_.size() ? work.end_stage(index) : Status::ok();
    });
  };
  COMM_TRY(all([](GpuWork& work) { return work.join_streams(); }));
  for (size_t i = 0; i < most; ++i) {
    COMM_TRY(all([&](GpuWork& work) {
      return i < work.stages_.size() ? work.begin_stage(i) : Status::ok();
    }));
    if (i > 0) COMM_TRY(end(i - 1));
  }
  if (most > 0) COMM_TRY(end(most - 1));
  return all([](GpuWork& work) { return work.finish(); });
}

void GpuWork::give_up(const Status& why) { (void)communicator_.fail(why); }

Status GpuWork::join_streams() {
  const Driver& driver = queue_->driver_;
  for (size_t i = 1; i < streams_.size(); ++i) {
    COMM_TRY(driver.check(driver.event_record(queue_->joint_.get(), streams_[i]), "cuEventRecord"));
    COMM_TRY(driver.check(driver.stream_wait_event(streams_.front(), queue_->joint_.get(), 0),
                          "cuStreamWaitEvent"));
  }
  if (captured_) return Status::ok();
  return driver.check(driver.stream_wait_event(streams_.front(), queue_->used_.get(), 0),
                      "cuStreamWaitEvent");
}

Status GpuWork::copy(std::span<const StagedCopy> copies) {
  const Driver& driver = queue_->driver_;
  for (const StagedCopy& each : copies)
    COMM_TRY(driver.check(
        driver.copy_async(number_of(each.to), number_of(each.from), each.bytes, streams_.front()),
        "copying between GPU and pinned memory"));
  return Status::ok();
}

Status GpuWork::begin_stage(size_t index) {
  const Driver& driver = queue_->driver_;
  COMM_TRY(copy(stages_[index].in));
  if (captured_)
    return driver.check(driver.host_function(streams_.front(), on_start, &starts_[index]),
                        "cuLaunchHostFunc");
  auto start = std::make_unique<Start>(Start{shared_from_this(), this, index});
  COMM_TRY(driver.check(driver.host_function(streams_.front(), on_start, start.get()),
                        "cuLaunchHostFunc"));
  (void)start.release();
  return Status::ok();
}

Status GpuWork::end_stage(size_t index) {
  const Driver& driver = queue_->driver_;
  if (waits_here_) {
    await_word(done_value(index));
    return copy(stages_[index].out);
  }
  COMM_TRY(driver.check(driver.stream_wait_value(streams_.front(), number_of(word_),
                                                 done_value(index), kWaitGreaterOrEqual),
                        "cuStreamWaitValue32"));
  return copy(stages_[index].out);
}

Status GpuWork::finish() {
  const Driver& driver = queue_->driver_;
  for (size_t i = 1; i < streams_.size(); ++i) {
    COMM_TRY(
        driver.check(driver.event_record(queue_->joint_.get(), streams_.front()), "cuEventRecord"));
    COMM_TRY(driver.check(driver.stream_wait_event(streams_[i], queue_->joint_.get(), 0),
                          "cuStreamWaitEvent"));
  }
  if (captured_) return Status::ok();
  return driver.check(driver.event_record(queue_->used_.get(), streams_.front()), "cuEventRecord");
}

// ---- a work: on the driver's thread, and on the engine's -------------------------------------

void GpuWork::on_start(void* argument) noexcept {
  auto* start = static_cast<Start*>(argument);
  if (start->work == nullptr) {  // a graph's, to be used again
    start->raw->start(start->stage);
    return;
  }
  const std::unique_ptr<Start> owned(start);
  owned->work->start(owned->stage);
}

void GpuWork::start(size_t stage) noexcept {
  {
    const std::lock_guard lock(queue_->mutex_);
    started_ = stage + 1;
    if (captured_ && stage == 0) begin_again();
  }
  queue_->changed_.notify_all();
}

// A graph has come to its first stage. With the queue's mutex.
void GpuWork::begin_again() noexcept {
  write_word(first_);
  try {
    if (queue_->closed_) {
      log_warn(
          "a graph with operations of a communicator that has ended was launched: they do nothing; "
          "destroy such graphs, or capture them again");
    } else {
      queue_->graphs_.push_back(shared_from_this());
      engine_.submit([queue = queue_] { run_next_graph(*queue); });
      return;
    }
  } catch (const std::exception&) {
    // Out of memory: the stream goes on, and the peers' deadlines tell.
  }
  write_word(done_value(stages_.size() - 1));
}

void GpuWork::write_word(uint32_t value) noexcept {
  std::atomic_ref<uint32_t>(*word_).store(value, std::memory_order_release);
  if (!waits_here_) return;
  { const std::lock_guard lock(queue_->mutex_); }
  queue_->changed_.notify_all();
}

// As the stream would; the engine lets nobody wait for ever.
void GpuWork::await_word(uint32_t value) {
  std::unique_lock lock(queue_->mutex_);
  queue_->changed_.wait(lock, [&] {
    const uint32_t now = std::atomic_ref<uint32_t>(*word_).load(std::memory_order_acquire);
    return static_cast<int32_t>(now - value) >= 0;
  });
}

// Ends when the stream has come to the stage, or the communicator has failed, or the GPU has.
Status GpuWork::await_start(size_t stage) {
  const Driver& driver = queue_->driver_;
  std::unique_lock lock(queue_->mutex_);
  for (int look = 1; started_ <= stage; ++look) {
    if (stage == 0 && !captured_ && !queue_->graphs_.empty()) {
      lock.unlock();
      run_next_graph(*queue_);
      lock.lock();
      continue;
    }
    queue_->changed_.wait_for(lock, kLookAround);
    if (communicator_.failure_.failed()) return communicator_.failure_.reason();
    if (look % kLooksPerQuery != 0) continue;
    const ContextScope scope(driver, queue_->gpu_.context);
    COMM_TRY(scope.status());
    const OutsideCapture outside(driver);
    const CUresult state = driver.event_query(queue_->used_.get());
    if (state != kSuccess && state != kNotReady)
      return driver.check(
          state,
          "the GPU has failed while an operation waited for its stream (an error of "
          "an earlier kernel or copy of the application)");
  }
  return Status::ok();
}

void GpuWork::run_next_graph(GpuQueue& queue) {
  std::shared_ptr<GpuWork> work;
  {
    const std::lock_guard lock(queue.mutex_);
    if (queue.graphs_.empty()) return;  // done already, before a work that had not begun
    work = std::move(queue.graphs_.front());
    queue.graphs_.pop_front();
  }
  work->run();
}

Status GpuWork::run_stage(Stage& stage) {
  for (const Stage::Scalar& scalar : stage.scalars) {
    Operation& operation = stage.operations[scalar.operation];
    std::memcpy(operation.scalar.data(), scalar.at, size_of(operation.type));
  }
  return communicator_.run_queued(stage.operations);
}

void GpuWork::run() noexcept {
  try {
    size_t next = 0;
    while (next < stages_.size()) {
      Status status = await_start(next);
      if (!status) (void)communicator_.fail(std::move(status));
      if (!status || !run_stage(stages_[next])) break;
      write_word(done_value(next++));
    }
    // Once the last stage is done, a graph may begin again: the word is its.
    if (next == stages_.size()) return;
  } catch (const std::exception& problem) {
    (void)communicator_.fail(
        error(Code::kSystem, "an operation on GPU memory failed: {}", problem.what()));
  }
  write_word(done_value(stages_.size() - 1));  // nobody waits for what will not be done
}

}  // namespace libcomm
