// SharedFile: memory without a name that other processes can map through its descriptor.
//
// A memfd, sealed so that no holder can cut it short under another's feet; where the kernel or a
// sandbox refuses memfd_create, an unlinked file in /dev/shm. Both are gone with their last holder.
#pragma once

#include <cstddef>

#include "src/base/fd.h"
#include "src/base/status.h"

namespace libcomm::shm {

class SharedFile {
 public:
  // A sparse, zeroed file of `bytes`. `allow_memfd` is false only in tests of the other way.
  // kSystem names what was refused and the remedy.
  static Result<SharedFile> create(const char* name, size_t bytes, bool allow_memfd = true);
  // A descriptor that came from a peer: kSystem unless it is at least `bytes` long and cannot
  // shrink.
  static Result<SharedFile> adopt(UniqueFd fd, size_t bytes);

  int fd() const { return fd_.get(); }
  // Memory must be reserved before it is touched, or running out of it would be a SIGBUS: true for
  // /dev/shm, which has a size limit, and under strict overcommit.
  bool must_reserve() const { return must_reserve_; }
  // Takes memory for [offset, offset + bytes) now. kSystem names --shm-size when /dev/shm is full.
  Status reserve(size_t offset, size_t bytes) const;
  // Maps [offset, offset + bytes) for reading and writing.
  Result<std::byte*> map(size_t offset, size_t bytes) const;

 private:
  UniqueFd fd_;
  bool memfd_ = true;
  bool must_reserve_ = false;
};

}  // namespace libcomm::shm
