#include "src/api/group.h"

#include <algorithm>
#include <thread>

#include "src/plan/planner.h"

namespace libcomm {

thread_local constinit int t_group_depth = 0;

namespace {

struct PendingWork {
  comm* handle;
  std::unique_ptr<HandleUse> use;  // keeps the communicator alive until the group ends
  std::vector<Operation> operations;
  std::vector<std::shared_ptr<HostStream>> streams;  // each once
  bool waits = false;  // an operation without a stream: the group's end waits for it
};

struct GroupState {
  Status first_failure;
  std::vector<PendingWork> work;
  std::vector<std::function<Status()>> creations;
};

thread_local GroupState t_group;

constexpr int kParallel = 1;  // among COMM_LAUNCH_MODE's choices

Status run_creations(std::vector<std::function<Status()>> creations) {
  std::vector<Status> results(creations.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < creations.size(); ++i)
    threads.emplace_back([&, i] { results[i] = creations[i](); });
  if (!creations.empty()) results[0] = creations[0]();
  for (std::thread& thread : threads) thread.join();
  for (Status& status : results)
    if (!status && status.code() != Code::kInProgress) return std::move(status);
  for (Status& status : results)
    if (!status) return std::move(status);
  return Status::ok();
}

Status run_work(std::vector<PendingWork> all) {
  Status first;
  const auto note = [&](Status status) {
    if (!status && (first.is_ok() || first.code() == Code::kInProgress)) first = std::move(status);
  };
  // What has a stream, or must not block, goes to the engines; they work side by side.
  std::vector<PendingWork*> here, queued_and_awaited;
  for (PendingWork& work : all) {
    const bool asynchronous = !work.streams.empty() || !work.handle->blocking;
    if (!asynchronous) {
      here.push_back(&work);
      continue;
    }
    Status status = work.handle->communicator->submit(std::move(work.operations), work.streams);
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
      Status status = work->handle->communicator->submit(std::move(work->operations), {});
      if (status) queued_and_awaited.push_back(work);
      note(std::move(status));
    }
    here.clear();
  }
  // The rest is driven together from this thread.
  std::vector<std::unique_ptr<Execution>> executions;
  std::vector<DrivenBatch> batches;
  for (PendingWork* work : here) {
    Communicator& communicator = *work->handle->communicator;
    if (Status status = communicator.drain(); !status) {
      note(std::move(status));
      continue;
    }
    executions.push_back(communicator.batch(std::move(work->operations)));
    batches.push_back({&communicator, executions.back().get()});
  }
  if (!batches.empty()) note(drive_all(batches));
  for (PendingWork* work : queued_and_awaited) note(work->handle->communicator->drain());
  return first;
}

}  // namespace

void note_group_failure(const Status& status) {
  if (!status && status.code() != Code::kInProgress && t_group.first_failure.is_ok())
    t_group.first_failure = status;
}

void add_to_group(comm* handle, Operation operation, std::shared_ptr<HostStream> stream) {
  auto it = std::find_if(t_group.work.begin(), t_group.work.end(),
                         [&](const PendingWork& work) { return work.handle == handle; });
  if (it == t_group.work.end()) {
    PendingWork work;
    work.handle = handle;
    work.use = std::make_unique<HandleUse>(handle);
    t_group.work.push_back(std::move(work));
    it = std::prev(t_group.work.end());
  }
  it->operations.push_back(std::move(operation));
  if (!stream) {
    it->waits = true;
  } else if (std::find(it->streams.begin(), it->streams.end(), stream) == it->streams.end()) {
    it->streams.push_back(std::move(stream));
  }
}

void add_creation(std::function<Status()> create) {
  t_group.creations.push_back(std::move(create));
}

void forget_in_group(comm* handle) {
  std::erase_if(t_group.work, [&](const PendingWork& work) { return work.handle == handle; });
}

Status group_start() {
  ++t_group_depth;
  return Status::ok();
}

Status group_end() {
  if (t_group_depth == 0)
    return Status(Code::kInvalidUsage, "commGroupEnd without a commGroupStart in this thread");
  if (--t_group_depth > 0) return Status::ok();
  GroupState group = std::move(t_group);
  t_group = GroupState();
  Status created = run_creations(std::move(group.creations));
  if (!group.first_failure) return std::move(group.first_failure);
  if (!created && created.code() != Code::kInProgress) return created;
  Status done = run_work(std::move(group.work));
  return done ? created : done;
}

Status group_simulate_end(double* microseconds) {
  if (t_group_depth == 0)
    return Status(Code::kInvalidUsage,
                  "commGroupSimulateEnd without a commGroupStart in this thread");
  *microseconds = 0;
  if (--t_group_depth > 0) return Status::ok();
  GroupState group = std::move(t_group);
  t_group = GroupState();
  for (const PendingWork& work : group.work) {
    const Planner& planner = work.handle->communicator->planner();
    for (const Operation& operation : work.operations) {
      if (operation.collective == Collective::kSendRecv) {
        *microseconds += estimate_us(operation, planner.shape(), "");
        continue;
      }
      COMM_ASSIGN(const double estimate, planner.estimate(operation));
      *microseconds += estimate;
    }
  }
  return std::move(group.first_failure);
}

}  // namespace libcomm
