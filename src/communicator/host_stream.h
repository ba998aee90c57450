// HostStream: an in-order queue of operations on host memory, possibly of several communicators.
//
// Every queued piece of work takes a ticket; it may run when all earlier tickets of the stream are
// done. What one group queues has the same ticket: it runs together. Work that need not run any
// more, because its communicator has failed, is done out of turn: an aborted communicator does not
// wait for another one's operations.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

class HostStream {
 public:
  // kInProgress, or the first failure, or OK when all is done.
  Status query() const;
  Status synchronize();

 private:
  friend class StreamTurns;
  bool all_done_before(uint64_t ticket) const {
    return pending_.empty() || *pending_.begin() >= ticket;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t issued_ = 0;
  std::multiset<uint64_t> pending_;  // tickets of the work that is not done
  Status first_failure_;
};

using HostStreams = std::vector<std::shared_ptr<HostStream>>;

// The places of one piece of work in its streams, each of which is there once.
class StreamTurns {
 public:
  // Of all the pieces of work of a group, at one moment as seen from everybody else: what follows
  // one part of it on one stream follows the other parts on the others.
  static std::vector<std::shared_ptr<StreamTurns>> take(std::vector<HostStreams> works);
  static std::shared_ptr<StreamTurns> take(HostStreams streams);

  // The work is done, or is never going to be.
  ~StreamTurns();
  StreamTurns(const StreamTurns&) = delete;
  StreamTurns& operator=(const StreamTurns&) = delete;

  // Waits until everything before is done, or `is_over` (asked every few milliseconds) says that
  // there is nothing to wait for. What is waited for is work of other communicators, each with a
  // deadline of its own.
  void await(const std::function<bool()>& is_over) const;
  // What came of the work; the first failure stays with the streams.
  void set_outcome(const Status& status) { outcome_ = status; }

 private:
  explicit StreamTurns(HostStreams streams) : streams_(std::move(streams)) {}

  const HostStreams streams_;
  std::vector<uint64_t> tickets_;  // by stream
  Status outcome_;
};

}  // namespace libcomm
