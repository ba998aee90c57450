#include "src/api/group.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>

#include "src/base/thread.h"
#include "src/communicator/batch.h"
#include "src/execute/p2p.h"
#include "src/plan/planner.h"

namespace libcomm {

thread_local constinit int t_group_depth = 0;

namespace {

struct PendingWork {
  PendingWork(comm* one, HandleUse&& in_use) : handle(one), use(std::move(in_use)) {}

  comm* handle;
  HandleUse use;  // keeps the communicator alive until the group ends
  std::vector<Operation> operations;
  HostStreams streams;  // each once
  bool waits = false;   // an operation without a stream: the group's end waits for it
  std::vector<cuda::CUstream> cuda_streams;  // each once; not empty: all of it goes to the GPU's
  GpuPlace gpu;
};

// A communicator that goes with the group.
struct Ending {
  comm_t handle;
  Status (*end)(comm_t);
};

struct GroupState {
  Status first_failure;
  std::vector<PendingWork> work;
  std::vector<Creation> creations;
  std::vector<Ending> endings;
};

// What a group is for as long as it has nothing but messages of one communicator that need no
// words (Communicator::is_quick).
struct QuickGroup {
  static constexpr size_t kMost = 16;

  bool open = false;  // the group is still of this kind
  size_t count = 0;
  comm* handle = nullptr;        // of the messages
  std::optional<HandleUse> use;  // counted: the group may stay open while other threads make calls
  std::array<MessageCall, kMost> messages;

  // Room for a message of this communicator; null when it does not go into such a group.
  MessageCall* add(comm* to, const void* buffer, size_t elements, int type, int peer) {
    if (!open || count == kMost) return nullptr;
    if (count > 0) {
      if (to != handle || !to->communicator->is_quick(buffer, elements, type, peer)) return nullptr;
    } else {
      QuickUse first(to);
      if (!first || !to->communicator->is_quick(buffer, elements, type, peer)) return nullptr;
      handle = to;
      use.emplace(std::move(first).keep());
    }
    return &messages[count++];
  }
};

Operation operation_of(const MessageCall& message) {
  Operation operation;
  operation.collective = Collective::kSendRecv;
  operation.root = message.peer;
  operation.is_send = message.is_send;
  operation.type = message.type;
  operation.count = message.count;
  operation.in = message.src;
  operation.out = message.dst;
  return operation;
}

// A thread's group, and the memory that it keeps from one to the next: a group of two small
// messages takes less time than two allocations would.
class ThreadGroup {
 public:
  GroupState open;
  QuickGroup quick;
  bool dropped_by_fork = false;

  // From now on the group is like any other.
  void leave_quick() {
    quick.open = false;
    if (quick.count == 0) return;
    PendingWork& work = add_work(quick.handle, *std::move(quick.use));
    for (const MessageCall& message : std::span(quick.messages).first(quick.count))
      work.operations.push_back(operation_of(message));
    work.waits = true;
    quick.use.reset();
    quick.count = 0;
  }
  // What the open group has of this communicator; null: nothing.
  PendingWork* work_of(const comm* handle) {
    for (PendingWork& work : open.work)
      if (work.handle == handle) return &work;
    return nullptr;
  }
  PendingWork& add_work(comm* handle, HandleUse&& use) {
    if (open.work.capacity() == 0) open.work = std::move(spare_work_);
    PendingWork& work = open.work.emplace_back(handle, std::move(use));
    work.operations = std::move(spare_operations_);
    return work;
  }
  GroupState take() { return std::exchange(open, GroupState()); }
  // Of a group that is over.
  void keep_memory(GroupState& over) {
    if (over.work.empty()) return;
    spare_operations_ = std::move(over.work.front().operations);
    spare_operations_.clear();
    spare_work_ = std::move(over.work);
    spare_work_.clear();
  }

 private:
  std::vector<PendingWork> spare_work_;
  std::vector<Operation> spare_operations_;
};

// Made when the thread opens its first group: the pointer is looked at by every call in one.
thread_local constinit ThreadGroup* t_group __attribute__((tls_model("initial-exec"))) = nullptr;

// Frees it when the thread ends. Destructors that run later may still open groups: what they then
// make is freed with the process.
struct ThreadGroupOwner {
  ~ThreadGroupOwner() { delete std::exchange(t_group, nullptr); }
};
thread_local ThreadGroupOwner t_group_owner;

ThreadGroup& thread_group() {
  if (t_group == nullptr) {
    t_group = new ThreadGroup;
    (void)&t_group_owner;  // made by being named
  }
  t_group->leave_quick();
  return *t_group;
}

// A forked child has the thread's group, but not the communicators in it.
void drop_group_in_child() {
  if (t_group_depth == 0) return;
  t_group_depth = 0;
  thread_group().dropped_by_fork = true;
  new GroupState(thread_group().take());  // what it holds may be locked for ever
}

Status no_group(const char* call) {
  return error(Code::kInvalidUsage, "{} without a commGroupStart in this thread{}", call,
               thread_group().dropped_by_fork
                   ? " (a group that is open during fork() stays with the parent)"
                   : "");
}

constexpr int kParallel = 1;  // among COMM_LAUNCH_MODE's choices

// The first failure, or the first kInProgress when there is none.
void keep_first(Status status, Status* first) {
  if (!status && (first->is_ok() || first->code() == Code::kInProgress)) *first = std::move(status);
}

// Drives several communicators together from this thread.
Status run_here(const std::vector<PendingWork*>& here) {
  if (here.empty()) return Status::ok();
  if (here.size() == 1) return here.front()->handle->communicator->run(here.front()->operations);
  Status first;
  std::deque<Batch> batches;
  std::vector<DrivenBatch> driven;
  for (PendingWork* work : here) {
    Communicator& communicator = *work->handle->communicator;
    if (Status status = communicator.drain(); !status) {
      keep_first(std::move(status), &first);
      continue;
    }
    driven.push_back({&communicator, &batches.emplace_back(communicator, work->operations)});
  }
  if (!driven.empty()) keep_first(drive_all(driven), &first);
  return first;
}

// Puts what is for GPUs on its streams: of all communicators side by side, since they may share
// streams.
Status enqueue_on_gpus(const std::vector<PendingWork*>& works) {
  if (works.empty()) return Status::ok();
  std::vector<std::shared_ptr<GpuWork>> prepared;
  for (PendingWork* work : works) {
    Communicator& communicator = *work->handle->communicator;
    Result<std::shared_ptr<GpuWork>> made =
        work->streams.empty()
            ? communicator.prepare(work->operations, work->gpu, work->cuda_streams,
                                   works.size() == 1)
            : error(
                  Code::kInvalidUsage,
                  "the calls of one group for one communicator are on a host stream and on a CUDA "
                  "stream (or on GPU memory); put them into two groups");
    if (!made) return std::move(made).status();
    if ((*made)->is_captured() && work->waits)
      return error(
          Code::kInvalidUsage,
          "a group that is captured into a graph has an operation on host memory without a "
          "stream, which cannot be captured; give it the stream");
    prepared.push_back(*std::move(made));
  }
  COMM_TRY(GpuWork::enqueue(prepared));
  for (PendingWork* work : works)
    if (work->waits) COMM_TRY(work->handle->communicator->drain());
  return Status::ok();
}

Status run_work(std::span<PendingWork> all) {
  // What is wrong here alone is found before anything starts: a communicator that has started would
  // fail on all ranks.
  for (const PendingWork& work : all)
    COMM_TRY(check_self_messages(work.handle->communicator->rank(), work.operations));
  if (all.size() == 1 && all.front().streams.empty() && all.front().cuda_streams.empty() &&
      all.front().handle->blocking)
    return all.front().handle->communicator->run(all.front().operations);
  Status first;
  const auto note = [&](Status status) { keep_first(std::move(status), &first); };
  // What has a stream, or must not block, goes to the engines; they work side by side.
  std::vector<PendingWork*> here, queued, queued_and_awaited, on_gpus;
  std::vector<HostStreams> streams;
  for (PendingWork& work : all) {
    if (!work.cuda_streams.empty()) {
      on_gpus.push_back(&work);
      continue;
    }
    const bool asynchronous =
        !work.streams.empty() || !work.handle->blocking || work.handle->communicator->has_graphs();
    if (!asynchronous) {
      here.push_back(&work);
      continue;
    }
    queued.push_back(&work);
    streams.push_back(work.streams);
  }
  note(enqueue_on_gpus(on_gpus));
  auto turns = StreamTurns::take(std::move(streams));
  for (size_t i = 0; i < queued.size(); ++i) {
    PendingWork& work = *queued[i];
    Status status =
        work.handle->communicator->submit(std::move(work.operations), std::move(turns[i]));
    if (!status) {
      note(std::move(status));
    } else if (!work.handle->blocking) {
      note(Status(Code::kInProgress, "operations were queued"));
    } else if (work.waits) {
      queued_and_awaited.push_back(&work);
    }
  }
  // With COMM_LAUNCH_MODE=PARALLEL several communicators work side by side, each on its engine.
  if (here.size() > 1 &&
      here.front()->handle->communicator->knobs().get_choice(Knob::kLaunchMode) == kParallel) {
    for (PendingWork* work : here) {
      Status status = work->handle->communicator->submit(std::move(work->operations),
                                                         StreamTurns::take(HostStreams()));
      if (status) queued_and_awaited.push_back(work);
      note(std::move(status));
    }
    here.clear();
  }
  note(run_here(here));
  for (PendingWork* work : queued_and_awaited) note(work->handle->communicator->drain());
  return first;
}

Status run_group(GroupState& group) {
  if (!group.first_failure) {
    for (const Creation& creation : group.creations) creation.skip();
    return std::move(group.first_failure);
  }
  Status created = run_creations(group.creations);
  if (!created && created.code() != Code::kInProgress) return created;
  Status done = run_work(group.work);
  return done ? created : done;
}

// When the group is over and holds no handle any more.
Status run_endings(const std::vector<Ending>& endings, Status so_far) {
  for (const Ending& ending : endings) keep_first(ending.end(ending.handle), &so_far);
  return so_far;
}

template <typename T>
void add_once(T item, std::vector<T>* items) {
  if (std::find(items->begin(), items->end(), item) == items->end())
    items->push_back(std::move(item));
}

}  // namespace

void note_group_failure(const Status& status) {
  if (!status && status.code() != Code::kInProgress && thread_group().open.first_failure.is_ok())
    thread_group().open.first_failure = status;
}

bool group_uses(const comm* handle) { return thread_group().work_of(handle) != nullptr; }

MessageCall* add_quick_message(comm* handle, const void* buffer, size_t count, int type, int peer) {
  return t_group == nullptr ? nullptr : t_group->quick.add(handle, buffer, count, type, peer);
}

Status add_to_group(comm* handle, Operation&& operation, Placement&& placement) {
  PendingWork* it = thread_group().work_of(handle);
  if (it == nullptr) {
    it = &thread_group().add_work(handle, HandleUse(handle));
    if (Status status = it->use.status(); !status) {  // another thread ends it this very moment
      thread_group().open.work.pop_back();
      return status;
    }
  }
  if (placement.on_cuda && it->gpu.context != nullptr && it->gpu.context != placement.gpu.context)
    return error(Code::kInvalidArgument,
                 "the calls of one group for one communicator are on GPU {} and on GPU {}",
                 it->gpu.ordinal, placement.gpu.ordinal);
  it->operations.push_back(std::move(operation));
  if (placement.on_cuda) {
    it->gpu = placement.gpu;
    add_once(placement.cuda_stream, &it->cuda_streams);
  } else if (!placement.host_stream) {
    it->waits = true;
  } else {
    add_once(std::move(placement.host_stream), &it->streams);
  }
  return Status::ok();
}

void add_creation(Creation creation) {
  thread_group().open.creations.push_back(std::move(creation));
}

void end_with_group(comm_t handle, Status (*end)(comm_t)) {
  thread_group().open.endings.push_back({handle, end});
}

void forget_in_group(comm* handle) {
  GroupState& open = thread_group().open;
  std::erase_if(open.work, [&](const PendingWork& work) { return work.handle == handle; });
  std::erase_if(open.endings, [&](const Ending& ending) { return ending.handle == handle; });
}

Status group_start() {
  static const int installed = pthread_atfork(nullptr, nullptr, drop_group_in_child);
  (void)installed;
  if (t_group_depth++ == 0 && t_group != nullptr) t_group->quick.open = true;
  return Status::ok();
}

Status group_end() {
  if (t_group_depth == 0) return no_group("commGroupEnd");
  if (--t_group_depth > 0) return Status::ok();
  if (t_group != nullptr && t_group->quick.count > 0) {
    QuickGroup& quick = t_group->quick;
    Communicator& communicator = *quick.handle->communicator;
    if (communicator.runs_in_caller()) {
      const HandleUse use = *std::move(quick.use);
      const size_t count = std::exchange(quick.count, 0);
      return communicator.run_quick(std::span(quick.messages).first(count));
    }
  }
  GroupState group = thread_group().take();
  Status status = run_group(group);
  thread_group().keep_memory(group);
  if (group.endings.empty()) return status;
  group.work.clear();
  return run_endings(group.endings, std::move(status));
}

Status group_simulate_end(double* microseconds) {
  if (t_group_depth == 0) return no_group("commGroupSimulateEnd");
  *microseconds = 0;
  if (--t_group_depth > 0) return Status::ok();
  GroupState group = thread_group().take();
  for (const Creation& creation : group.creations) creation.skip();
  Status status = std::move(group.first_failure);
  for (const PendingWork& work : group.work) {
    const Planner& planner = work.handle->communicator->planner();
    for (const Operation& operation : work.operations) {
      const Result<double> estimate = planner.estimate(operation);
      if (estimate)
        *microseconds += *estimate;
      else
        keep_first(estimate.status(), &status);
    }
  }
  group.work.clear();
  return run_endings(group.endings, std::move(status));
}

}  // namespace libcomm
