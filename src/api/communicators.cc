// Creating, deriving, ending and asking about communicators.
#include <algorithm>
#include <chrono>

#include "src/api/check.h"
#include "src/api/config.h"
#include "src/api/current_gpu.h"
#include "src/api/errors.h"
#include "src/api/group.h"
#include "src/api/handle.h"
#include "src/base/fd.h"
#include "src/base/log.h"
#include "src/base/thread.h"

namespace libcomm {
namespace {

using Create =
    std::function<Result<std::shared_ptr<Communicator>>(const std::atomic<bool>* cancel)>;

// Fills a handle with what `create` makes.
Status finish_creation(comm* handle, const Create& create) {
  auto made = [&]() -> Result<std::shared_ptr<Communicator>> {
    try {
      return create(&handle->cancel);
    } catch (const std::exception& e) {
      return error(Code::kSystem, "creating the communicator: {}", e.what());
    }
  }();
  if (!made) {
    handle->start_failure = made.status();
    handle->set_last_error(made.status().to_string());
    handle->stage.store(comm::Stage::kFailed, std::memory_order_release);
    return std::move(made).status();
  }
  handle->communicator = *std::move(made);
  // Asked for by VERSION, and part of INFO; WARN, the default, is for trouble only.
  if (handle->communicator->rank() == 0 &&
      (log_wants(LogLevel::kInfo, Subsys::kInit) || !log_wants(LogLevel::kWarn)))
    log_version("libcomm {}, API {}.{}.{}", COMM_LIBRARY_VERSION, COMM_MAJOR, COMM_MINOR,
                COMM_PATCH);
  handle->stage.store(comm::Stage::kLive, std::memory_order_release);
  return Status::ok();
}

// A handle whose creation failed, and that is not handed out.
void discard(comm* handle, comm_t* result) {
  if (!handle->ending.exchange(true)) free_handle(handle);
  *result = nullptr;
}

// Creates a communicator now, in the background, or at the end of the group. *result is set at
// once, except that a blocking creation that fails leaves it NULL. `parent`: what it derives from.
// `meeting`: the ids that the ranks meet by.
Status begin_creation(comm_t* result, const CommOptions& options, Create create_it,
                      const Communicator* parent, std::vector<UniqueIdBytes> meeting = {}) {
  COMM_ASSIGN(comm* const handle, new_handle());
  // On another thread, or later in this one, the GPU is still that of the call.
  const Create create = [context = current_context(),
                         create_it = std::move(create_it)](const std::atomic<bool>* cancel) {
    const CurrentGpu current(context);
    return create_it(cancel);
  };
  handle->blocking = options.blocking;
  handle->name = options.name;
  *result = handle;
  const auto start_or_add = [&](std::function<Status()> run) {
    if (!in_group()) return run();
    add_creation({parent, handle, std::move(meeting), std::move(run),
                  [handle, result] { discard(handle, result); }});
    return Status::ok();
  };
  if (!options.blocking) {
    auto start = [handle, result, create]() -> Status {
      auto thread =
          start_thread("comm-create", [handle, create] { (void)finish_creation(handle, create); });
      if (!thread) {
        discard(handle, result);
        return std::move(thread).status();
      }
      handle->starter = *std::move(thread);
      handle->in_background.store(true, std::memory_order_release);
      return Status(Code::kInProgress, "the communicator is being created");
    };
    return start_or_add(start);
  }
  auto run = [handle, result, create] {
    Status status = finish_creation(handle, create);
    if (!status) discard(handle, result);
    return status;
  };
  return start_or_add(run);
}

Status check_rank(comm_t* result, int nranks, int rank) {
  if (result == nullptr) return Status(Code::kInvalidArgument, "comm is NULL");
  *result = nullptr;
  if (nranks < 1) return error(Code::kInvalidArgument, "nranks {} is less than 1", nranks);
  if (rank < 0 || rank >= nranks)
    return error(Code::kInvalidArgument, "rank {} is not in 0 to {} (nranks {})", rank, nranks - 1,
                 nranks);
  return Status::ok();
}

Status check_not_finalized(const Communicator& parent, const char* call) {
  if (!parent.finalized()) return Status::ok();
  return error(
      Code::kInvalidUsage,
      "rank {}: {} after commFinalize; nothing may be derived from a finalized communicator",
      parent.rank(), call);
}

UniqueIdBytes bytes_of(const commUniqueId& id) {
  UniqueIdBytes bytes;
  std::copy(std::begin(id.internal), std::end(id.internal), bytes.begin());
  return bytes;
}

Status init_rank(comm_t* result, int nranks, int rank, std::span<const commUniqueId> ids,
                 const commConfig_t* config) {
  COMM_TRY(check_rank(result, nranks, rank));
  COMM_ASSIGN(const CommOptions options, read_config(config, CommOptions()));
  Rendezvous rendezvous;
  for (const commUniqueId& id : ids) rendezvous.ids.push_back(bytes_of(id));
  const auto create = [=](const std::atomic<bool>* cancel) {
    return Communicator::create(rendezvous, rank, nranks, options, cancel);
  };
  return begin_creation(result, options, create, nullptr, rendezvous.ids);
}

Status destroy(comm_t handle);

Status init_all(comm_t* handles, int ndev, const int* devlist) {
  if (handles == nullptr) return Status(Code::kInvalidArgument, "comm is NULL");
  if (ndev < 1) return error(Code::kInvalidArgument, "ndev {} is less than 1", ndev);
  for (int i = 0; devlist != nullptr && i < ndev; ++i)
    if (devlist[i] < 0)
      return error(Code::kInvalidArgument, "devlist[{}] = {} is negative", i, devlist[i]);
  std::fill_n(handles, ndev, nullptr);
  // Before there are ranks that would wait for one whose GPU cannot be used.
  std::vector<PrimaryContext> gpus;
  for (int i = 0; i < ndev; ++i) {
    auto gpu = PrimaryContext::of(devlist == nullptr ? i : devlist[i]);
    if (!gpu) return std::move(gpu).status().at_rank(i);
    gpus.push_back(*std::move(gpu));
  }
  COMM_ASSIGN(const auto knobs, Knobs::load());
  COMM_ASSIGN(const UniqueIdBytes id, make_unique_id(*knobs));
  const Rendezvous rendezvous{{id}};
  Status first;
  std::vector<Creation> creations;
  for (int rank = 0; rank < ndev && first; ++rank) {
    auto handle = new_handle();
    if (!handle) {
      first = std::move(handle).status();
      break;
    }
    handles[rank] = *handle;
    handles[rank]->blocking = true;
    const auto create = [=, &gpus]() -> Status {
      const CurrentGpu current(gpus[static_cast<size_t>(rank)].get());
      return finish_creation(handles[rank], [=](const std::atomic<bool>* cancel) {
        return Communicator::create(rendezvous, rank, ndev, CommOptions(), cancel);
      });
    };
    creations.push_back({.handle = *handle, .meeting = rendezvous.ids, .run = create});
  }
  // On a thread that has no GPU: a rank without one does not get the caller's.
  JoinedThreads thread;
  Status made;
  if (first) first = thread.start("comm-create", [&] { made = run_creations(creations); });
  thread.join();
  if (first) first = std::move(made);
  if (first) return first;
  for (int rank = 0; rank < ndev; ++rank) {
    if (handles[rank] == nullptr) continue;
    if (handles[rank]->communicator != nullptr)
      (void)destroy(handles[rank]);
    else
      free_handle(handles[rank]);
    handles[rank] = nullptr;
  }
  return first;
}

// Ends a handle that this call alone has taken on to end. `last_words` is what its communicator
// does before it goes.
template <typename LastWords>
void end(comm* handle, LastWords&& last_words) {
  if (handle->starter.joinable()) handle->starter.join();
  if (handle->communicator != nullptr) {
    handle->stage.store(comm::Stage::kClosing, std::memory_order_seq_cst);
    last_words(*handle->communicator);
  }
  handle->stage.store(comm::Stage::kClosed, std::memory_order_seq_cst);
  heavy_fence();
  while (handle->users.load(std::memory_order_seq_cst) > 0 ||
         handle->in_quick_call.load(std::memory_order_acquire))
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  handle->communicator.reset();
  free_handle(handle);
}

// The handle may be ended: its creation is over, or on a thread that end() waits for.
Status find_handle_to_end(comm_t handle, comm** found) {
  COMM_TRY(find_handle(handle, found));
  if ((*found)->stage.load(std::memory_order_acquire) == comm::Stage::kStarting &&
      !(*found)->in_background.load(std::memory_order_acquire))
    return Status(
        Code::kInvalidUsage,
        "the communicator is being created by another call; it cannot be ended before that call "
        "returns");
  return Status::ok();
}

Status destroy(comm_t handle) {
  comm* real = nullptr;
  COMM_TRY(find_handle_to_end(handle, &real));
  if (real->ending.exchange(true))
    return Status(Code::kInvalidArgument,
                  "another thread destroys or aborts this communicator at this moment");
  // Work that was queued is finished; a communicator that failed is only freed.
  end(real, [](Communicator& communicator) { (void)communicator.drain(); });
  return Status::ok();
}

Status abort(comm_t handle) {
  comm* real = nullptr;
  COMM_TRY(find_handle(handle, &real));
  real->cancel.store(true, std::memory_order_release);
  forget_in_group(real);
  COMM_TRY(find_handle_to_end(handle, &real));
  constexpr const char* kWhy = "called commAbort";
  if (!real->ending.exchange(true)) {
    end(real, [](Communicator& communicator) { communicator.abort(kWhy); });
    return Status::ok();
  }
  // Another call ends the handle already, and may be waiting for what this one cuts short.
  HandleUse use(handle, HandleUse::Stages::kLiveOrClosing);
  if (use.handle() != nullptr) use.communicator().abort(kWhy);
  return Status::ok();
}

}  // namespace
}  // namespace libcomm

using namespace libcomm;  // NOLINT: the C API's definitions live in the global namespace

extern "C" {

commResult_t commInitRank(comm_t* comm, int nranks, commUniqueId commId, int rank) {
  return gathered([&] {
    return guarded(nullptr, [&] { return init_rank(comm, nranks, rank, {&commId, 1}, nullptr); });
  });
}

commResult_t commInitRankConfig(comm_t* comm, int nranks, commUniqueId commId, int rank,
                                commConfig_t* config) {
  return gathered([&] {
    return guarded(nullptr, [&] { return init_rank(comm, nranks, rank, {&commId, 1}, config); });
  });
}

commResult_t commInitRankScalable(comm_t* newcomm, int nranks, int myrank, int nId,
                                  commUniqueId* commIds, commConfig_t* config) {
  return gathered([&] {
    return guarded(nullptr, [&]() -> Status {
      COMM_TRY(check_rank(newcomm, nranks, myrank));
      if (commIds == nullptr) return Status(Code::kInvalidArgument, "commIds is NULL");
      if (nId < 1 || nId > nranks)
        return error(Code::kInvalidArgument, "nId {} is not in 1 to nranks {}", nId, nranks);
      return init_rank(newcomm, nranks, myrank, {commIds, static_cast<size_t>(nId)}, config);
    });
  });
}

commResult_t commInitAll(comm_t* comm, int ndev, const int* devlist) {
  return gathered([&] { return guarded(nullptr, [&] { return init_all(comm, ndev, devlist); }); });
}

commResult_t commInitFromLauncher(comm_t* comm) {
  return gathered([&] {
    return guarded(nullptr, [&]() -> Status {
      if (comm == nullptr) return Status(Code::kInvalidArgument, "comm is NULL");
      *comm = nullptr;
      COMM_ASSIGN(const auto knobs, Knobs::load());
      COMM_ASSIGN(const LauncherInfo launcher, join_launcher(*knobs));
      COMM_TRY(check_rank(comm, launcher.nranks, launcher.rank));
      const auto create = [launcher](const std::atomic<bool>* cancel) {
        return Communicator::create(launcher.rendezvous, launcher.rank, launcher.nranks,
                                    CommOptions(), cancel);
      };
      return begin_creation(comm, CommOptions(), create, nullptr);
    });
  });
}

commResult_t commFinalize(comm_t comm) {
  if (comm == nullptr) return commSuccess;
  return with_handle(comm, [&](HandleUse& use) -> Status { return use.communicator().finalize(); });
}

commResult_t commDestroy(comm_t comm) {
  if (comm == nullptr) return commSuccess;
  return guarded(nullptr, [&]() -> Status {
    if (!in_group()) return destroy(comm);
    end_with_group(comm, destroy);
    return Status::ok();
  });
}

commResult_t commAbort(comm_t comm) {
  if (comm == nullptr) return commSuccess;
  return guarded(nullptr, [&] { return abort(comm); });
}

commResult_t commRevoke(comm_t comm, int revokeFlags) {
  if (comm == nullptr) return commSuccess;
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (revokeFlags != COMM_REVOKE_DEFAULT)
      return error(Code::kInvalidArgument, "revokeFlags {} must be 0", revokeFlags);
    return use.communicator().revoke();
  });
}

commResult_t commSplit(comm_t comm, int color, int key, comm_t* newcomm, commConfig_t* config) {
  return gathered([&] {
    return with_handle(comm, [&](HandleUse& use) -> Status {
      if (newcomm == nullptr) return Status(Code::kInvalidArgument, "newcomm is NULL");
      *newcomm = nullptr;
      if (color < 0 && color != COMM_SPLIT_NOCOLOR)
        return error(Code::kInvalidArgument, "color {} is negative and not COMM_SPLIT_NOCOLOR",
                     color);
      COMM_ASSIGN(const CommOptions options, read_config(config, use.communicator().options()));
      COMM_TRY(check_not_finalized(use.communicator(), "commSplit"));
      auto parent = use.handle()->communicator;
      if (color == COMM_SPLIT_NOCOLOR) {
        // Nothing to hand out, but the others count on this rank's answer.
        const auto answer = [parent, key, options, turn = parent->take_setup_turn()]() -> Status {
          return parent->split(COMM_SPLIT_NOCOLOR, key, options, turn).status();
        };
        if (!in_group()) return answer();
        add_creation({.parent = parent.get(), .run = answer});
        return Status::ok();
      }
      const auto create = [=, turn = parent->take_setup_turn()](const std::atomic<bool>* cancel) {
        return parent->split(color, key, options, turn, cancel);
      };
      return begin_creation(newcomm, options, create, parent.get());
    });
  });
}

commResult_t commShrink(comm_t comm, int* excludeRanksList, int excludeRanksCount, comm_t* newcomm,
                        commConfig_t* config, int shrinkFlags) {
  return gathered([&] {
    return with_handle(comm, [&](HandleUse& use) -> Status {
      Communicator& communicator = use.communicator();
      if (newcomm == nullptr) return Status(Code::kInvalidArgument, "newcomm is NULL");
      *newcomm = nullptr;
      if (excludeRanksCount < 1 || excludeRanksCount >= communicator.nranks())
        return error(Code::kInvalidArgument, "excludeRanksCount {} is not in 1 to {}",
                     excludeRanksCount, communicator.nranks() - 1);
      if (excludeRanksList == nullptr)
        return Status(Code::kInvalidArgument, "excludeRanksList is NULL");
      if (shrinkFlags != COMM_SHRINK_DEFAULT && shrinkFlags != COMM_SHRINK_ABORT)
        return error(Code::kInvalidArgument, "shrinkFlags {} is not a COMM_SHRINK_ flag",
                     shrinkFlags);
      std::vector<int> excluded(excludeRanksList, excludeRanksList + excludeRanksCount);
      std::sort(excluded.begin(), excluded.end());
      for (size_t i = 0; i < excluded.size(); ++i) {
        COMM_TRY(check_root(excluded[i], communicator, "excluded rank"));
        if (i > 0 && excluded[i] == excluded[i - 1])
          return error(Code::kInvalidArgument, "excluded rank {} is listed twice", excluded[i]);
        if (excluded[i] == communicator.rank())
          return error(Code::kInvalidUsage,
                       "rank {} excludes itself; only the ranks that stay call commShrink",
                       excluded[i]);
      }
      COMM_TRY(check_not_finalized(communicator, "commShrink"));
      COMM_ASSIGN(const CommOptions options, read_config(config, communicator.options()));
      auto parent = use.handle()->communicator;
      const auto create = [=](const std::atomic<bool>* cancel) {
        if (shrinkFlags == COMM_SHRINK_ABORT)
          if (Status revoked = parent->revoke(); !revoked)
            return Result<std::shared_ptr<Communicator>>(std::move(revoked));
        return parent->shrink(excluded, options, cancel);
      };
      return begin_creation(newcomm, options, create, parent.get());
    });
  });
}

commResult_t commGetAsyncError(comm_t comm, commResult_t* asyncError) {
  return guarded(nullptr, [&]() -> Status {
    if (asyncError == nullptr) return Status(Code::kInvalidArgument, "asyncError is NULL");
    struct comm* real = nullptr;
    COMM_TRY(find_handle(comm, &real));
    switch (real->stage.load(std::memory_order_acquire)) {
      case comm::Stage::kStarting:
        *asyncError = commInProgress;
        return Status::ok();
      case comm::Stage::kFailed:
        *asyncError = static_cast<commResult_t>(real->start_failure.code());
        return Status::ok();
      default:
        break;
    }
    const HandleUse use(comm, HandleUse::Stages::kLiveOrClosing);
    if (!use.status()) return use.status();
    const Status state = use.communicator().state();
    *asyncError = static_cast<commResult_t>(state.code());
    if (!state && state.code() != Code::kInProgress) real->set_last_error(state.to_string());
    return Status::ok();
  });
}

commResult_t commCount(const comm_t comm, int* count) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (count == nullptr) return Status(Code::kInvalidArgument, "count is NULL");
    *count = use.communicator().nranks();
    return Status::ok();
  });
}

commResult_t commUserRank(const comm_t comm, int* rank) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (rank == nullptr) return Status(Code::kInvalidArgument, "rank is NULL");
    *rank = use.communicator().rank();
    return Status::ok();
  });
}

commResult_t commCuDevice(const comm_t comm, int* device) {
  return with_handle(comm, [&](HandleUse& use) -> Status {
    if (device == nullptr) return Status(Code::kInvalidArgument, "device is NULL");
    *device = use.communicator().gpu();
    return Status::ok();
  });
}

}  // extern "C"
