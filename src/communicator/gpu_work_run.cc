// The second half of GpuWork: on the driver's thread, and on the engine's.
#include <atomic>
#include <chrono>
#include <cstring>

#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/communicator/communicator.h"
#include "src/communicator/engine.h"
#include "src/communicator/gpu_work.h"
#include "src/device/scopes.h"

namespace libcomm {
namespace {

using namespace cuda;  // NOLINT: the driver's names are long enough

constexpr std::chrono::microseconds kLookAround{5000};
constexpr std::chrono::microseconds kLookAtMessages{100};  // while some have not gone
constexpr std::chrono::microseconds kLookAtKernel{100};    // whether it has begun
// How often a work that waits for its stream asks whether the GPU still works.
constexpr std::chrono::milliseconds kQueryEvery{200};

}  // namespace

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
  std::atomic_ref<uint32_t>(device_words_->begun).store(0, std::memory_order_relaxed);
  std::atomic_ref<uint32_t>(device_words_->ended).store(0, std::memory_order_release);
  bool counted = false;
  try {
    if (queue_->closed_) {
      log_warn(
          "a graph with operations of a communicator that has ended was launched: they do nothing; "
          "destroy such graphs, or capture them again");
    } else {
      queue_->graphs_.push_back(shared_from_this());
      PendingWork::begin_in_host_function();
      counted = true;
      engine_.submit([queue = queue_] { run_next_graph(*queue); });
      return;
    }
  } catch (const std::exception&) {
    if (counted) PendingWork::end();
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

// With the queue's mutex.
bool GpuWork::has_started(size_t index) {
  return tells_by_kernel(index) ? execution(index).has_begun() : started_ > index;
}

// Ends when the stream has come to the stage, or the communicator has failed, or the GPU has.
Status GpuWork::await_start(size_t stage) {
  const Driver& driver = queue_->driver_;
  std::unique_lock lock(queue_->mutex_);
  auto query_at = Clock::now() + kQueryEvery;
  while (!has_started(stage)) {
    if (stage == 0 && !captured_ && !queue_->graphs_.empty()) {
      lock.unlock();
      run_next_graph(*queue_);
      lock.lock();
      continue;
    }
    const bool passes_on = messages_ && !messages_->exchanged();
    queue_->changed_.wait_for(lock, passes_on                ? kLookAtMessages
                                    : tells_by_kernel(stage) ? kLookAtKernel
                                                             : kLookAround);
    if (communicator_.failure_.failed()) return communicator_.failure_.reason();
    if (passes_on) {
      lock.unlock();
      COMM_TRY(messages_->go_on());
      lock.lock();
    }
    if (Clock::now() < query_at) continue;
    query_at = Clock::now() + kQueryEvery;
    lock.unlock();  // host functions take it, and the driver may wait for them
    const ContextScope scope(driver, queue_->gpu_.context);
    COMM_TRY(scope.status());
    const OutsideCapture outside(driver);
    const CUresult state = driver.event_query(queue_->used_.get());
    lock.lock();
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
  PendingWork::end();
  GpuQueue::end_stale();
}

Status GpuWork::run_meeting(const Stage& stage, std::byte* slot) {
  PeerMemory& memory = *communicator_.peer_memory_;
  const Operation& operation = operations_[stage.direct];
  const ContextScope scope(queue_->driver_, memory.context());
  if (!scope.status()) return communicator_.fail(scope.status());
  const OutsideCapture outside(queue_->driver_);
  GpuMeeting meeting(communicator_, memory);
  GpuCard card = cards_[stage.direct];
  const void* scalar = stage.scalars.empty() ? operation.scalar.data() : stage.scalars.front().at;
  std::memcpy(&card.scalar, scalar, size_of(operation.type));
  COMM_TRY(meeting.meet(operation, card, arguments_, &together_, &anew_));
  // Others may have heard of a failure by now, and given their memory up.
  if (communicator_.failure_.failed()) return communicator_.failure_.reason();
  // Stages of its own follow, of which none waits for the others' copies.
  const bool own = paths_[stage.direct] == StagingPlace::Path::kOwnStages;
  if (own && anew_) return meeting.leave();
  if (own || together_ || anew_) return Status::ok();
  return run_staged(operation, slot);
}

Status GpuWork::run_leaving(const Stage& stage, std::byte* slot) {
  disarm();
  PeerMemory& memory = *communicator_.peer_memory_;
  // Copies that rest on a wrong guess read others' memory too.
  if (together_ || anew_) COMM_TRY(GpuMeeting(communicator_, memory).leave());
  if (!anew_) return Status::ok();
  // All that kernels and copies have written is overwritten.
  const ContextScope scope(queue_->driver_, memory.context());
  if (!scope.status()) return communicator_.fail(scope.status());
  const OutsideCapture outside(queue_->driver_);
  return run_staged(operations_[stage.direct], slot);
}

Status GpuWork::run_messages(size_t index) {
  const Stage& stage = stages_[index];
  PeerMemory& memory = *communicator_.peer_memory_;
  if (stage.round == 0)
    messages_.emplace(communicator_, memory, stage, offers_[index]);
  else
    messages_->copied();
  if (stage.is_last()) {
    disarm();
    COMM_TRY(messages_->finish());
    messages_.reset();
    return Status::ok();
  }
  const ContextScope scope(queue_->driver_, memory.context());
  if (!scope.status()) return communicator_.fail(scope.status());
  const OutsideCapture outside(queue_->driver_);
  CopyArguments& copies = arguments_->copies;
  COMM_TRY(messages_->take(stage.rounds - stage.round, &copies));
  if (on_its_gpu_ || copies.segment_count == 0) return Status::ok();
  for (int i = 0; i < copies.segment_count; ++i) {
    const CopySegment& each = copies.segments[i];
    if (Status status = memory.copy(each.to, each.from, each.bytes); !status)
      return communicator_.fail(std::move(status));
  }
  Status status = memory.finish([&] { return communicator_.failure_.failed(); });
  return status ? Status::ok() : communicator_.fail(std::move(status));
}

DeviceExecution GpuWork::execution(size_t index) {
  const auto check = [this]() -> Status {
    const ExecuteMismatch& found = device_words_->mismatch;
    if (const uint32_t peer =
            std::atomic_ref(device_words_->mismatch.peer).load(std::memory_order_acquire))
      return mismatch(place_.rank, communicator_.current_, found.expected,
                      static_cast<int>(peer) - 1, communicator_.current_, found.sent);
    const Driver& driver = queue_->driver_;
    const ContextScope scope(driver, queue_->gpu_.context);
    COMM_TRY(scope.status());
    const OutsideCapture outside(driver);
    const CUresult state = driver.event_query(queue_->used_.get());
    if (state == kSuccess || state == kNotReady) return Status::ok();
    return driver.check(state, "the GPU has failed in a collective");
  };
  return DeviceExecution(device_words_, launch_numbers_[index], check);
}

// The kernel does the work: this looks on.
Status GpuWork::run_execution(size_t index) {
  const Operation& operation = operations_[stages_[index].direct];
  communicator_.current_ = signature_of(operation, ++communicator_.operations_);
  communicator_.current_.table_hash ^= kGpuKernels;
  if (Board* board = communicator_.shm_.board; board != nullptr)
    board->publish_for_later(communicator_.current_);
  DeviceExecution kernel = execution(index);
  COMM_TRY(communicator_.drive(kernel));
  // It also ends when it is told to give up.
  return communicator_.failure_.failed() ? communicator_.failure_.reason() : Status::ok();
}

// From now on the late kernels do nothing. One that runs may be reading the rest.
void GpuWork::disarm() noexcept {
  std::atomic_ref(arguments_->reduction.count).store(0, std::memory_order_release);
  std::atomic_ref(arguments_->copies.segment_count).store(0, std::memory_order_release);
}

// As if it had been planned so, but that the engine does the copies.
Status GpuWork::run_staged(const Operation& operation, std::byte* slot) {
  PeerMemory& memory = *communicator_.peer_memory_;
  StagingPlace place = place_;
  place.paths = {};
  place.slots[0] = place.slots[1] = slot;
  const auto copy = [&](std::span<const StagedCopy> copies) -> Status {
    for (const StagedCopy& each : copies) COMM_TRY(memory.copy(each.to, each.from, each.bytes));
    if (copies.empty()) return Status::ok();
    return memory.finish([&] { return communicator_.failure_.failed(); });
  };
  for (Stage& stage : plan_stages({&operation, 1}, place)) {
    if (Status status = copy(stage.in); !status) return communicator_.fail(std::move(status));
    COMM_TRY(run_stage(stage));
    if (Status status = copy(stage.out); !status) return communicator_.fail(std::move(status));
  }
  return Status::ok();
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
      if (!status) break;
      Stage& stage = stages_[next];
      if (stage.kind == Stage::Kind::kMeet)
        status = run_meeting(stage, place_.slots[next % 2]);
      else if (stage.kind == Stage::Kind::kLeave)
        status = run_leaving(stage, place_.slots[next % 2]);
      else if (stage.kind == Stage::Kind::kMessages)
        status = run_messages(next);
      else if (stage.kind == Stage::Kind::kExecute)
        status = run_execution(next);
      else
        status = run_stage(stage);
      if (!status) break;
      write_word(done_value(next++));
    }
    // Once the last stage is done, a graph may begin again: the word is its.
    if (next == stages_.size()) return;
  } catch (const std::exception& problem) {
    (void)communicator_.fail(
        error(Code::kSystem, "an operation on GPU memory failed: {}", problem.what()));
  }
  disarm();
  if (!programs_.empty()) {
    queue_->abort_kernels();
    const std::lock_guard lock(queue_->mutex_);
    queue_->given_up_.insert(queue_->given_up_.end(), programs_.begin(), programs_.end());
  }
  messages_.reset();
  write_word(done_value(stages_.size() - 1));  // nobody waits for what will not be done
}

}  // namespace libcomm
