// File descriptors that close themselves, in this process and in forked children.
//
// Every descriptor that the library owns is noted in a table that the child side of fork() walks:
// a forked child (a data loader, say) must not keep a dead parent's sockets open.
#pragma once

#include <utility>

namespace libcomm {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd);
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  void reset();
  // Gives the descriptor up without closing it.
  int release();

 private:
  int fd_ = -1;
};

// Grows by one in every forked child; a handle made under another generation belongs to the parent.
unsigned fork_generation();

}  // namespace libcomm
