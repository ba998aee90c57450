// Graphs: operations with what they follow; how streams are captured into them; and what holds user
// objects until the last of them is gone.
#pragma once

#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "tests/doubles/cuda/stream.h"

namespace libcomm::cuda::doubled {

struct UserObject {
  void* pointer = nullptr;
  CUhostFn destroy = nullptr;
  unsigned references = 0;
  unsigned of_program = 0;  // those of the references that no graph has
};

// References to user objects: given back when it is destroyed, which is done with the lock.
class Held {
 public:
  explicit Held(State& state) : state_(state) {}
  ~Held();
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  void add(const std::shared_ptr<UserObject>& object, unsigned count);
  // As many of the same.
  std::unique_ptr<Held> copy() const;

 private:
  State& state_;
  std::map<std::shared_ptr<UserObject>, unsigned> counts_;
};

struct Node {
  Work work;
  std::vector<size_t> after;  // earlier nodes
  size_t lane = 0;            // which of the captured streams
};

struct Graph {
  std::vector<Node> nodes;
  std::vector<Context*> lanes;  // of the captured streams
  bool captured = true;         // and not ended
  std::unique_ptr<Held> held;
};
using GraphRef = std::shared_ptr<Graph>;

// A graph to launch: each of its lanes is a stream of its own.
struct GraphExec {
  ~GraphExec();
  std::vector<Node> nodes;
  std::vector<StreamRef> lanes;
  Mark last;  // the end of the launch before
  std::unique_ptr<Held> held;
};

struct Capture {
  uint64_t id = 0;
  GraphRef graph;
  int mode = kCaptureGlobal;
  std::thread::id thread;
  std::vector<StreamRef> streams;  // by lane; the first is the one that it began in
  bool invalid = false, ended = false;
};

// The one way in for operations: into the stream's queue or its capture.
CUresult submit(State& state, Stream& stream, Work work);
// kCaptureImplicit where the default stream is used while a blocking stream is captured.
CUresult check_legacy(State& state, const Stream& stream, bool invalidates = true);
// For the calls that may end in a wait for a capture: kCaptureUnsupported where one forbids them.
CUresult check_unsafe(State& state);
// kCaptureUnsupported, or kCaptureInvalidated if it was so before; the capture is invalid now.
CUresult invalidate(Capture& capture, CUresult code = kCaptureUnsupported);
// The stream takes part no more; its capture is invalid.
void leave_capture(Stream& stream);

}  // namespace libcomm::cuda::doubled
