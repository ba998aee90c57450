#include "src/bootstrap/doorkeeper.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>

#include "src/base/log.h"

namespace libcomm {

bool epoll_add(int epoll, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void epoll_change(int epoll, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  (void)::epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

void epoll_remove(int epoll, int fd) { (void)::epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr); }

namespace {

// Whether somebody has written, or connected, who has not been heard: it was this thread that took
// the time.
bool is_readable(int fd) {
  pollfd look{fd, POLLIN, 0};
  return ::poll(&look, 1, 0) > 0;
}

}  // namespace

size_t Doorkeeper::max_pending() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return kMaxPending;
  return static_cast<size_t>(std::clamp<rlim_t>(limit.rlim_cur / 8, 4, kMaxPending));
}

Doorkeeper::Doorkeeper(int epoll, Listeners listeners, const Key& key, uint32_t self,
                       uint32_t nranks)
    : epoll_(epoll), listeners_(std::move(listeners)), key_(key), self_(self), nranks_(nranks) {
  for (const UniqueFd& fd : listeners_.fds) epoll_add(epoll_, fd.get(), EPOLLIN);
}

bool Doorkeeper::on_event(int fd, std::vector<Arrival>* arrivals) {
  const auto is_fd = [fd](const UniqueFd& listener) { return listener.get() == fd; };
  if (std::any_of(listeners_.fds.begin(), listeners_.fds.end(), is_fd)) {
    accept_from(fd);
    return true;
  }
  const auto found = by_fd_.find(fd);
  if (found == by_fd_.end()) return false;
  const PendingList::iterator at = found->second;
  const Handshake state = at->handshake.step(fd);
  if (state == Handshake::kAgain) {
    if (at->handshake.of_this_group()) at->may_go = at->deadline;
    return true;
  }
  if (state == Handshake::kDone) {
    epoll_remove(epoll_, fd);
    by_fd_.erase(found);
    arrivals->push_back({std::move(at->fd), at->handshake.hello(), at->from});
    forget(at);
    return true;
  }
  // One of the group that hangs up has lost its patience, and comes again.
  if (state != Handshake::kClosed ||
      (at->handshake.challenged() && !at->handshake.of_this_group())) {
    ++refused_;
    last_refused_ = at->from.to_string();
    log_info(Subsys::kBootstrap,
             "dropped a connection from {} that did not prove the group's secret", last_refused_);
  }
  drop(at);
  return true;
}

void Doorkeeper::accept_from(int listener) {
  // A bounded turn, so that a flood of strangers leaves time for everyone else.
  for (int turn = 0; turn < 64; ++turn) {
    if (pending_.size() >= max_pending_) {
      if (!is_readable(listener)) return;
      if (!make_room()) {
        pause_listeners();
        return;
      }
    }
    SocketAddress from;
    int problem = 0;
    UniqueFd fd = accept_one(listener, &from, &problem);
    if (problem != 0) {
      if (pending_.empty() && is_descriptor_shortage(problem)) shortage_ = problem;
      if (make_room()) continue;
      pause_listeners();
      return;
    }
    if (!fd) return;
    tune_control_socket(fd.get());
    const int number = fd.get();
    if (!epoll_add(epoll_, number, EPOLLIN)) continue;
    pending_.push_back({std::move(fd), from, CalleeHandshake(key_, self_, nranks_),
                        Deadline::after(Seconds(kPatience)),
                        Deadline::after(Seconds(kLeastPatience))});
    by_fd_[number] = std::prev(pending_.end());
  }
}

bool Doorkeeper::make_room() {
  const auto at = std::find_if(pending_.begin(), pending_.end(), [](const Pending& each) {
    return each.may_go.passed() && !is_readable(each.fd.get());
  });
  if (at == pending_.end()) return false;
  drop(at);
  return true;
}

void Doorkeeper::drop(PendingList::iterator at) {
  epoll_remove(epoll_, at->fd.get());
  by_fd_.erase(at->fd.get());
  forget(at);
}

void Doorkeeper::forget(PendingList::iterator at) {
  pending_.erase(at);
  if (paused_) resume_listeners();
}

void Doorkeeper::pause_listeners() {
  for (const UniqueFd& fd : listeners_.fds) epoll_change(epoll_, fd.get(), 0);
  paused_ = true;
  resume_ = Deadline::after(Seconds(0.1));
}

void Doorkeeper::resume_listeners() {
  for (const UniqueFd& fd : listeners_.fds) epoll_change(epoll_, fd.get(), EPOLLIN);
  paused_ = false;
}

int Doorkeeper::expire(int cap_ms) {
  if (paused_ && resume_.passed()) resume_listeners();
  for (auto at = pending_.begin(); at != pending_.end() && at->deadline.passed();) {
    const auto each = at++;
    if (!is_readable(each->fd.get())) drop(each);
  }
  if (!pending_.empty()) cap_ms = pending_.front().deadline.poll_ms(cap_ms);
  return paused_ ? resume_.poll_ms(cap_ms) : cap_ms;
}

void Doorkeeper::close() {
  while (!pending_.empty()) drop(pending_.begin());
  for (const UniqueFd& fd : listeners_.fds) epoll_remove(epoll_, fd.get());
  listeners_.fds.clear();
}

}  // namespace libcomm
