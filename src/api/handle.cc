#include "src/api/handle.h"

#include <array>
#include <deque>

#include "src/base/fd.h"
#include "src/base/fork_mutex.h"

void comm::set_last_error(std::string text) {
  std::lock_guard lock(mutex);
  last_error_text = std::move(text);
}

std::string comm::last_error() const {
  std::lock_guard lock(mutex);
  return last_error_text;
}

namespace libcomm {

thread_local constinit const comm* t_used_handle = nullptr;

namespace {

constexpr size_t kSlabHandles = 256;
constexpr size_t kMostSlabs = 4096;
constexpr size_t kRestBeforeReuse = 16384;  // closed handles that wait before one is reused

struct Slab {
  std::array<comm, kSlabHandles> handles;
};

// The table of live handles: one of the process-wide things that docs/architecture.md names.
struct Table {
  std::array<std::atomic<Slab*>, kMostSlabs> slabs{};
  std::atomic<size_t> slab_count{0};
  ForkMutex mutex;
  size_t used_of_last = kSlabHandles;
  std::deque<comm*> resting;
};

Table& table() {
  static Table* instance = new Table;  // outlives every static destructor
  return *instance;
}
// Made while the library is loaded: a fork must not find it half made.
[[maybe_unused]] const Table& g_made_early = table();

bool is_handle(const comm* handle) {
  Table& t = table();
  const size_t count = t.slab_count.load(std::memory_order_acquire);
  const auto address = reinterpret_cast<uintptr_t>(handle);
  for (size_t i = 0; i < count; ++i) {
    const auto begin =
        reinterpret_cast<uintptr_t>(t.slabs[i].load(std::memory_order_acquire)->handles.data());
    if (address >= begin && address < begin + kSlabHandles * sizeof(comm))
      return (address - begin) % sizeof(comm) == 0;
  }
  return false;
}

}  // namespace

Result<comm*> new_handle() {
  prepare_fences();
  Table& t = table();
  std::lock_guard lock(t.mutex);
  comm* handle = nullptr;
  if (t.resting.size() > kRestBeforeReuse) {
    handle = t.resting.front();
    t.resting.pop_front();
  } else {
    if (t.used_of_last == kSlabHandles) {
      const size_t count = t.slab_count.load(std::memory_order_relaxed);
      if (count == kMostSlabs)
        return error(Code::kSystem, "more than {} communicators in one process",
                     kMostSlabs * kSlabHandles);
      t.slabs[count].store(new Slab, std::memory_order_release);
      t.slab_count.store(count + 1, std::memory_order_release);
      t.used_of_last = 0;
    }
    const size_t last = t.slab_count.load(std::memory_order_relaxed) - 1;
    handle = &t.slabs[last].load(std::memory_order_relaxed)->handles[t.used_of_last++];
  }
  handle->generation = fork_generation();
  handle->cancel.store(false);
  handle->ending.store(false);
  handle->in_quick_call.store(false);  // a fork may have left it set
  handle->in_background.store(false);
  handle->start_failure = Status::ok();
  handle->name.clear();
  handle->set_last_error("");
  handle->stage.store(comm::Stage::kStarting, std::memory_order_release);
  return handle;
}

void free_handle(comm* handle) {
  {
    std::lock_guard lock(handle->mutex);
    for (comm::Registration* entry : handle->registrations) delete entry;
    for (comm::Registration* entry : handle->windows) delete entry;
    handle->registrations.clear();
    handle->windows.clear();
  }
  handle->stage.store(comm::Stage::kClosed, std::memory_order_release);
  Table& t = table();
  std::lock_guard lock(t.mutex);
  t.resting.push_back(handle);
}

Status find_handle(const comm* handle, comm** found) {
  if (handle == nullptr) return Status(Code::kInvalidArgument, "the communicator is NULL");
  if (handle != t_used_handle && !is_handle(handle))  // handles' memory is never freed
    return error(Code::kInvalidArgument,
                 "{} is not a communicator of this library (uninitialised variable, or a handle of "
                 "another library?)",
                 static_cast<const void*>(handle));
  comm* real = const_cast<comm*>(handle);
  const comm::Stage stage = real->stage.load(std::memory_order_acquire);
  if (stage == comm::Stage::kClosed || stage == comm::Stage::kFree)
    return error(Code::kInvalidArgument,
                 "the communicator {} was destroyed or aborted; it must not be used any more",
                 static_cast<const void*>(handle));
  if (real->generation != fork_generation())
    return Status(
        Code::kInvalidUsage,
        "this communicator belongs to the parent process; a forked child must create its own");
  *found = real;
  return Status::ok();
}

HandleUse::HandleUse(const comm* handle, Stages stages) {
  comm* real = nullptr;
  status_ = find_handle(handle, &real);
  if (!status_) return;
  known_ = real;
  real->users.fetch_add(1, std::memory_order_seq_cst);
  // Looked at again, now that closing waits for us.
  const comm::Stage stage = real->stage.load(std::memory_order_seq_cst);
  if (stage == comm::Stage::kLive) {
    handle_ = real;
    t_used_handle = real;
    return;
  }
  if (stage == comm::Stage::kClosing && stages == Stages::kLiveOrClosing) {
    handle_ = real;
    return;
  }
  switch (stage) {
    case comm::Stage::kStarting:
      status_ =
          Status(Code::kInvalidUsage,
                 "the communicator is still being created; wait until commGetAsyncError stops "
                 "saying commInProgress");
      break;
    case comm::Stage::kFailed:
      status_ = real->start_failure;
      break;
    default:
      status_ = Status(Code::kInvalidArgument, "the communicator was destroyed or aborted");
      known_ = nullptr;
  }
  real->users.fetch_sub(1, std::memory_order_acq_rel);
}

}  // namespace libcomm
