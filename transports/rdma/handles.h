// Handles: verbs objects that destroy themselves.
//
// A forked child inherits the numbers, not the objects: there nothing is destroyed, and the
// descriptors behind them are closed by the table of src/base/fd.h, so that a child that lives on
// does not keep a dead rank's queue pairs alive.
#pragma once

#include <memory>

#include "src/base/fd.h"
#include "transports/rdma/verbs.h"

namespace libcomm::rdma {

template <auto Function>
struct Destroy {
  std::shared_ptr<const Verbs> verbs;
  unsigned generation = fork_generation();
  template <typename T>
  void operator()(T* object) const {
    if (generation == fork_generation()) (void)((*verbs).*Function)(object);
  }
};

using Pd = std::unique_ptr<ibv_pd, Destroy<&Verbs::dealloc_pd>>;
using Mr = std::unique_ptr<ibv_mr, Destroy<&Verbs::dereg_mr>>;
using Cq = std::unique_ptr<ibv_cq, Destroy<&Verbs::destroy_cq>>;
using Qp = std::unique_ptr<ibv_qp, Destroy<&Verbs::destroy_qp>>;

// A descriptor that a verbs object owns: noted, so that forked children close it, and closed by
// that object alone.
class NotedFd {
 public:
  NotedFd() = default;
  explicit NotedFd(int fd) : fd_(fd) {}
  NotedFd(NotedFd&&) = default;
  NotedFd& operator=(NotedFd&&) = delete;
  ~NotedFd() { fd_.release(); }

 private:
  UniqueFd fd_;
};

class Context {
 public:
  static Result<Context> open(std::shared_ptr<const Verbs> verbs, ibv_device* device);
  ibv_context* get() const { return context_.get(); }
  ibv_context* operator->() const { return context_.get(); }

 private:
  using Pointer = std::unique_ptr<ibv_context, Destroy<&Verbs::close_device>>;
  explicit Context(Pointer context)
      : context_(std::move(context)), command_(context_->cmd_fd), events_(context_->async_fd) {}
  Pointer context_;
  NotedFd command_, events_;  // forgotten before the context closes them
};

class CompletionChannel {
 public:
  static Result<CompletionChannel> create(std::shared_ptr<const Verbs> verbs, ibv_context* context);
  ibv_comp_channel* get() const { return channel_.get(); }
  int fd() const { return channel_->fd; }

 private:
  using Pointer = std::unique_ptr<ibv_comp_channel, Destroy<&Verbs::destroy_comp_channel>>;
  explicit CompletionChannel(Pointer channel)
      : channel_(std::move(channel)), noted_(channel_->fd) {}
  Pointer channel_;
  NotedFd noted_;
};

// Makes a read of `fd` that finds nothing return at once.
Status set_nonblocking(int fd);

}  // namespace libcomm::rdma
