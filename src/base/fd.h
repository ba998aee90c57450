// File descriptors that close themselves, in this process and in forked children.
//
// Every descriptor that the library owns is noted in a table that the child side of fork() walks:
// a forked child (a data loader, say) must not keep a dead parent's sockets open.
#pragma once

#include <string>
#include <utility>

#include "src/base/status.h"

namespace libcomm {

// Grows by one in every forked child; a handle made under another generation belongs to the parent.
unsigned fork_generation();

// Whether an error number says that this process, or the system, has no descriptor left.
bool is_descriptor_shortage(int err);
// kSystem with the error's text, and with the limit to raise when it is such a shortage.
Status descriptor_error(int err, std::string what);

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd);
  UniqueFd(UniqueFd&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), generation_(other.generation_) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
      generation_ = other.generation_;
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  // In a forked child the numbers of the parent's descriptors mean nothing: fork_generation()
  // tells.
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  void reset();
  // Gives the descriptor up without closing it; -1 when there is none, or it was the parent's.
  int release();

 private:
  int fd_ = -1;
  unsigned generation_ =
      0;  // a child's own descriptor of the same number is not this one's to close
};

}  // namespace libcomm
