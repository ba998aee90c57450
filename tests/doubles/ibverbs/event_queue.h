// Events behind a descriptor that can be polled and set non-blocking: one count of an eventfd each.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>

namespace rdma_double {

template <typename Event>
class EventQueue {
 public:
  // -1 if the process has no more descriptors.
  int open() { return fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE); }
  void close() { ::close(fd_); }

  // With the node's lock.
  void push(const Event& event) {
    events_.push_back(event);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
  }
  template <typename Condition>
  void erase(Condition condition) {
    for (auto left = std::erase_if(events_, condition); left > 0; --left) take_count();
  }
  bool pop(Event* event) {
    if (events_.empty()) return false;
    *event = events_.front();
    events_.pop_front();
    take_count();
    return true;
  }

  // Without the lock: waits until there may be an event; false with errno if the program wants no
  // wait.
  bool await() const {
    const bool waits = (::fcntl(fd_, F_GETFL) & O_NONBLOCK) == 0;
    pollfd entry{fd_, POLLIN, 0};
    const int ready = ::poll(&entry, 1, waits ? -1 : 0);
    if (ready == 0) errno = EAGAIN;
    return ready > 0;
  }

 private:
  void take_count() {
    uint64_t one;
    [[maybe_unused]] const ssize_t got = ::read(fd_, &one, sizeof(one));
  }

  int fd_ = -1;
  std::deque<Event> events_;
};

}  // namespace rdma_double
