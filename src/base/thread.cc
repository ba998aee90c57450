#include "src/base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>

#include "src/base/log.h"

namespace libcomm {
namespace {

// Blocks all signals while it lives; a thread started meanwhile inherits that.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

Result<std::thread> start_thread(const std::string& name, std::function<void()> body) {
  try {
    const SignalsBlocked blocked;
    std::thread thread([name, body = std::move(body)]() mutable {
      try {
        (void)pthread_setname_np(pthread_self(), name.c_str());
        body();
        body = nullptr;  // what it holds may throw no more than itself
      } catch (const std::exception& problem) {
        log_warn("thread {} ended early: {}; please report it", name, problem.what());
      }
    });
    return thread;
  } catch (const std::system_error& problem) {
    return system_error(
        problem.code().value(),
        fmt::format("cannot start the thread {} (limits: `ulimit -u`, /proc/sys/kernel/threads-max "
                    "and the container's pids limit)",
                    name));
  }
}

Status JoinedThreads::start(const std::string& name, std::function<void()> body) {
  threads_.reserve(threads_.size() + 1);
  COMM_ASSIGN(std::thread thread, start_thread(name, std::move(body)));
  threads_.push_back(std::move(thread));
  return Status::ok();
}

void JoinedThreads::join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace libcomm
