// HostStream: an in-order queue of operations on host memory, possibly of several communicators.
//
// Every queued piece of work takes a ticket; it may run when all earlier tickets of the stream are
// done.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "src/base/status.h"

namespace libcomm {

class HostStream {
 public:
  uint64_t take_ticket();
  // Waits until every ticket before `ticket` is finished.
  void wait_turn(uint64_t ticket);
  // Marks the ticket done. The first failure stays with the stream.
  void finish(uint64_t ticket, const Status& status);

  // kInProgress, or the first failure, or OK when all is done.
  Status query() const;
  Status synchronize();

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t issued_ = 0;
  uint64_t finished_ = 0;
  Status first_failure_;
};

}  // namespace libcomm
