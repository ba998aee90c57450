#include "transports/tcp/helpers.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

namespace libcomm {
namespace {

// A sleeping helper looks at its senders this often even when nothing happens: a dead route makes
// no event (RouteWatch).
constexpr int kSleepMs = 1000;

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

Result<std::unique_ptr<Helper>> Helper::start(int index) {
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell) return system_error(errno, "eventfd for a TCP helper thread (raise `ulimit -n`)");
  std::unique_ptr<Helper> helper(new Helper(std::move(bell)));
  try {
    const SignalsBlocked blocked;
    helper->thread_ = std::thread(&Helper::run, helper.get());
  } catch (const std::system_error& failure) {
    return system_error(failure.code().value(),
                        fmt::format("TCP helper thread {} (COMM_SOCKET_NTHREADS)", index));
  }
  ::pthread_setname_np(helper->thread_.native_handle(), fmt::format("comm-tcp-{}", index).c_str());
  return helper;
}

Helper::~Helper() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  ring();
  thread_.join();
}

void Helper::add(Strand* strand) { change(strand, true); }
void Helper::remove(Strand* strand) { change(strand, false); }

// Returns once the helper has done it.
void Helper::change(Strand* strand, bool add) {
  std::unique_lock lock(mutex_);
  changes_.push_back({strand, add});
  const uint64_t mine = ++requested_;
  changed_ = true;
  ring();
  applied_now_.wait(lock, [&] { return applied_ >= mine; });
}

void Helper::wake() {
  if (asleep_.load(std::memory_order_seq_cst)) ring();
}

void Helper::ring() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the helper is being woken already.
  [[maybe_unused]] const ssize_t written = ::write(bell_.get(), &one, sizeof one);
}

void Helper::run() {
  while (!stopping_) {
    apply_changes();
    if (move_all()) continue;
    // Whoever stores something for a strand after this second look sees asleep_ and rings.
    asleep_.store(true, std::memory_order_seq_cst);
    if (!move_all() && !changed_ && !stopping_) sleep();
    asleep_.store(false, std::memory_order_seq_cst);
  }
}

void Helper::apply_changes() {
  if (!changed_) return;
  const std::lock_guard lock(mutex_);
  for (const Change& change : changes_) {
    if (change.add) {
      strands_.push_back(change.strand);
    } else {
      std::erase(strands_, change.strand);
    }
  }
  changes_.clear();
  changed_ = false;
  applied_ = requested_;
  applied_now_.notify_all();
}

bool Helper::move_all() {
  bool moved = false;
  for (Strand* strand : strands_) moved |= strand->move();
  return moved;
}

void Helper::sleep() {
  std::vector<pollfd> awaited{{bell_.get(), POLLIN, 0}};
  for (const Strand* strand : strands_) {
    const WaitHandle handle = strand->wait_handle();
    if (handle.fd < 0) continue;
    awaited.push_back({handle.fd, static_cast<short>(handle.for_write ? POLLOUT : POLLIN), 0});
  }
  (void)::poll(awaited.data(), awaited.size(), kSleepMs);
  uint64_t rung;
  [[maybe_unused]] const ssize_t got = ::read(bell_.get(), &rung, sizeof rung);
}

Status HelperPool::start() {
  const std::lock_guard lock(mutex_);
  while (static_cast<int>(helpers_.size()) < threads_) {
    COMM_ASSIGN(std::unique_ptr<Helper> helper, Helper::start(static_cast<int>(helpers_.size())));
    helpers_.push_back(std::move(helper));
    ++running_;
  }
  return Status::ok();
}

}  // namespace libcomm
