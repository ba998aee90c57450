// Handles: what a comm_t points to.
//
// Handles live in slabs that are never freed and are not reused for long, so that a handle used
// after commDestroy, or one that never was, is told apart without touching freed memory.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "comm.h"
#include "src/api/errors.h"
#include "src/base/fd.h"
#include "src/base/fence.h"
#include "src/base/status.h"
#include "src/communicator/communicator.h"

// The C API's opaque struct.
struct comm {
  // kClosing: one call has taken it on to end this handle, and only commAbort and commGetAsyncError
  // may still come in.
  enum class Stage : int { kFree, kStarting, kLive, kFailed, kClosing, kClosed };

  // A call counts itself in, then looks at the stage; who ends the handle stores the stage, then
  // waits for the count. One of them sees the other because all four accesses are sequentially
  // consistent. A quick call says so in `in_quick_call` instead, with a light fence before it
  // looks; a handle is used by one thread at a time, but for those that end it.
  std::atomic<Stage> stage{Stage::kFree};
  std::atomic<int> users{0};  // calls inside this handle right now, but a quick one
  std::atomic<bool> in_quick_call{false};
  std::atomic<bool> ending{false};  // some call ends this handle: the first one to set it
  unsigned generation = 0;          // of fork, when it was made
  std::shared_ptr<libcomm::Communicator> communicator;
  bool blocking = true;
  std::string name;  // commConfig_t.commName, for texts; set before the handle is known to others

  // Creation in the background (blocking = 0).
  std::thread starter;
  std::atomic<bool> in_background{false};  // `starter` is there, for the call that ends the handle
  std::atomic<bool> cancel{false};

  void set_last_error(std::string text);
  std::string last_error() const;
  // The failure of the creation (kFailed).
  libcomm::Status start_failure;

  // commRegister and commWindowRegister hand out addresses inside these.
  struct Registration {
    void* buffer;
    size_t size;
  };
  mutable std::mutex mutex;  // guards what follows
  std::string last_error_text;
  std::set<Registration*> registrations;
  std::set<Registration*> windows;
};

namespace libcomm {

// A fresh handle in stage kStarting. kSystem when there is no memory.
Result<comm*> new_handle();
// Gives the handle back; the communicator must be gone.
void free_handle(comm* handle);

// A call's use of a handle: keeps the communicator from being freed under it.
class HandleUse {
 public:
  enum class Stages { kLive, kLiveOrClosing };
  // kInvalidArgument: NULL, never made here, destroyed. kInvalidUsage: made before a fork, or still
  // being created. The failure of its creation, if it failed.
  explicit HandleUse(const struct comm* handle, Stages stages = Stages::kLive);
  ~HandleUse() { end(); }
  HandleUse(HandleUse&& from) noexcept
      : handle_(std::exchange(from.handle_, nullptr)),
        known_(from.known_),
        status_(std::move(from.status_)) {}
  HandleUse& operator=(HandleUse&& from) noexcept {
    end();
    handle_ = std::exchange(from.handle_, nullptr);
    known_ = from.known_;
    status_ = std::move(from.status_);
    return *this;
  }

  const Status& status() const { return status_; }
  comm* handle() const { return handle_; }
  Communicator& communicator() const { return *handle_->communicator; }
  // For error texts: the handle when it is one, else null.
  comm* for_errors() const { return known_; }

 private:
  friend class QuickUse;
  // Of a handle that the caller has counted itself into.
  struct Counted {};
  HandleUse(Counted, struct comm* handle) : handle_(handle), known_(handle) {}

  void end() {
    if (handle_ != nullptr) handle_->users.fetch_sub(1, std::memory_order_acq_rel);
  }

  comm* handle_ = nullptr;  // non-null: in use by us
  comm* known_ = nullptr;
  Status status_;
};

// Runs the body of a call on a communicator that can be used, while it is in use.
template <typename Body>
commResult_t with_handle(const struct comm* handle, Body&& body) {
  try {
    HandleUse use(handle);
    return guarded(use.for_errors(), [&]() -> Status {
      if (!use.status()) return use.status();
      return body(use);
    });
  } catch (const std::exception&) {
    return report_exception();
  }
}

// The handle that this thread used last. Handles' memory is never freed, so what was one stays one.
extern thread_local constinit const struct comm* t_used_handle
    __attribute__((tls_model("initial-exec")));

// As HandleUse, for the handle that this thread used last and that needs no words: false otherwise.
class QuickUse {
 public:
  explicit QuickUse(struct comm* handle) {
    if (handle == nullptr || handle != t_used_handle) return;
    handle->in_quick_call.store(true, std::memory_order_relaxed);
    light_fence();
    const bool usable = handle->stage.load(std::memory_order_seq_cst) == comm::Stage::kLive &&
                        handle->generation == fork_generation() && handle->blocking;
    if (usable)
      handle_ = handle;
    else
      handle->in_quick_call.store(false, std::memory_order_release);
  }
  ~QuickUse() { end(); }
  QuickUse(QuickUse&& from) noexcept : handle_(std::exchange(from.handle_, nullptr)) {}
  QuickUse& operator=(QuickUse&&) = delete;
  explicit operator bool() const { return handle_ != nullptr; }
  // The same use, beside others: it is counted now.
  HandleUse keep() && {
    handle_->users.fetch_add(1, std::memory_order_seq_cst);
    HandleUse kept(HandleUse::Counted(), handle_);
    end();
    return kept;
  }

 private:
  void end() {
    if (handle_ != nullptr) handle_->in_quick_call.store(false, std::memory_order_release);
    handle_ = nullptr;
  }

  struct comm* handle_ = nullptr;  // non-null: in use by us
};

// The handle behind a comm_t in any stage but free; OK says that it may be inspected.
Status find_handle(const struct comm* handle, comm** found);

}  // namespace libcomm
