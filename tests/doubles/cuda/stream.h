// Stream: a queue of operations and the thread that runs them, one after the other.
//
// All of it is guarded by the lock of the state, which is not held while an operation runs. Threads
// start with the first operation and end when the stream is closed and its queue is empty.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/doubles/cuda/calls.h"

namespace libcomm::cuda::doubled {

struct Context;
struct State;
struct Capture;
class Stream;
using StreamRef = std::shared_ptr<Stream>;
using Lock = std::unique_lock<std::mutex>;

// What an operation does, as often as it is launched.
struct Work {
  std::function<void(Context&)> run;  // without the lock
  std::function<bool()> ready;        // if any: polled until it is true, before `run`
};

// A place in a stream: reached when so many operations are done.
struct Mark {
  StreamRef stream;
  uint64_t done = 0;
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  enum class Kind { kLegacy, kBlocking, kNonBlocking };

  Stream(State& state, Context& context, Kind kind);

  // In the order of the stream, after `after`, and as the default stream wants it.
  Mark enqueue(Work work, std::vector<Mark> after = {});
  // Everything that was queued so far: in all blocking streams for the default stream.
  std::vector<Mark> so_far();
  bool reached(uint64_t done) const { return done_ >= done; }
  bool idle() const { return done_ == queued_; }
  // No operation follows; what is queued still runs.
  void close();
  void pause(bool paused);

  Context& context() const { return context_; }
  Kind kind() const { return kind_; }

  // While it is captured: the nodes that the next one follows, and its place among the streams.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> capture_after;
  size_t capture_lane = 0;
  std::vector<const void*> capture_shown;

 private:
  struct Operation {
    Work work;
    std::vector<Mark> after;
    uint64_t ticket = 0;
  };
  void start();
  void loop();
  void wait_for_turn(Lock& lock, const Operation& operation);
  void take_ticket(Operation* operation);
  void issued();

  State& state_;
  Context& context_;
  const Kind kind_;
  size_t channel_ = 0;
  bool shares_channel_ = false;
  std::deque<Operation> queue_;
  std::condition_variable changed_;
  uint64_t queued_ = 0, done_ = 0;
  bool started_ = false, closed_ = false, paused_ = false;
};

// Detached, and deaf to signals.
void start_thread(std::function<void()> body);

bool reached(const std::vector<Mark>& marks);
// Until all are reached, or the context has failed: then its error.
CUresult wait_for(State& state, Lock& lock, Context& context, const std::vector<Mark>& marks);
// For everything that was queued in the context so far.
CUresult wait_for_all(State& state, Lock& lock, Context& context);

// The stream of a handle in the current context; null: no live one.
StreamRef stream_of(State& state, Context& context, CUstream handle);
// In the child of a fork.
void forget_thread_streams();

}  // namespace libcomm::cuda::doubled
