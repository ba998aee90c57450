#include "transports/tcp/helpers.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "src/base/thread.h"

namespace libcomm {
namespace {

// A sleeping helper looks at its senders this often even when nothing happens: a dead route makes
// no event (RouteWatch).
constexpr int kSleepMs = 1000;

}  // namespace

Result<std::unique_ptr<Helper>> Helper::start(int index) {
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell) return system_error(errno, "eventfd for a TCP helper thread (raise `ulimit -n`)");
  std::unique_ptr<Helper> helper(new Helper(std::move(bell)));
  auto thread =
      start_thread(fmt::format("comm-tcp-{}", index), [raw = helper.get()] { raw->run(); });
  if (!thread) return std::move(thread).status().context("COMM_SOCKET_NTHREADS");
  helper->thread_ = *std::move(thread);
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
