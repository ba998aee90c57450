// Stream capture: cuStreamBeginCapture to cuStreamEndCapture, and what is forbidden between them.
#include <algorithm>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

thread_local int t_mode = kCaptureGlobal;

void detach(Stream& stream) {
  stream.capture = nullptr;
  stream.capture_after.clear();
}

// No stream is in it any more.
void end(State& state, Capture& capture) {
  capture.ended = true;
  capture.graph->captured = false;
  std::vector<StreamRef> streams = std::move(capture.streams);
  std::erase_if(state.captures, [&](const auto& each) { return each.get() == &capture; });
  for (const StreamRef& each : streams) detach(*each);
}

// Whether everything that the other streams did is awaited by the first one.
bool joined(const Capture& capture) {
  const auto& nodes = capture.graph->nodes;
  std::vector<bool> awaited(nodes.size(), false);
  std::vector<size_t> left = capture.streams.front()->capture_after;
  while (!left.empty()) {
    const size_t node = left.back();
    left.pop_back();
    if (awaited[node]) continue;
    awaited[node] = true;
    left.insert(left.end(), nodes[node].after.begin(), nodes[node].after.end());
  }
  return std::find(awaited.begin(), awaited.end(), false) == awaited.end();
}

int status_of(const Stream& stream) {
  if (stream.capture == nullptr) return kNotCapturing;
  return stream.capture->invalid ? kCaptureIsInvalid : kCapturing;
}

}  // namespace

CUresult invalidate(Capture& capture, CUresult code) {
  if (capture.invalid) return kCaptureInvalidated;
  capture.invalid = true;
  return code;
}

CUresult check_legacy(State& state, const Stream& stream, bool invalidates) {
  if (stream.kind() != Stream::Kind::kLegacy) return kSuccess;
  CUresult result = kSuccess;
  for (const auto& capture : state.captures) {
    const bool meets =
        std::any_of(capture->streams.begin(), capture->streams.end(), [&](const StreamRef& each) {
          return each->kind() == Stream::Kind::kBlocking && &each->context() == &stream.context();
        });
    if (!meets) continue;
    result = kCaptureImplicit;
    if (invalidates) (void)invalidate(*capture);
  }
  return result;
}

CUresult check_unsafe(State& state) {
  if (t_mode == kCaptureRelaxed) return kSuccess;
  CUresult result = kSuccess;
  for (const auto& capture : state.captures) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool forbids = own ? capture->mode != kCaptureRelaxed
                             : t_mode == kCaptureGlobal && capture->mode == kCaptureGlobal;
    if (!forbids) continue;
    result = kCaptureUnsupported;
    (void)invalidate(*capture);
  }
  return result;
}

void leave_capture(Stream& stream) {
  const auto capture = stream.capture;
  capture->invalid = true;
  if (capture->streams.front().get() == &stream) {
    state().graphs.erase(capture->graph.get());
    end(state(), *capture);
    return;
  }
  std::erase_if(capture->streams, [&](const StreamRef& each) { return each.get() == &stream; });
  detach(stream);
}

CUresult submit(State& state, Stream& stream, Work work) {
  if (const CUresult may = check_legacy(state, stream); may != kSuccess) return may;
  if (stream.capture == nullptr) {
    (void)stream.enqueue(std::move(work));
    return kSuccess;
  }
  Capture& capture = *stream.capture;
  if (capture.invalid) return kCaptureInvalidated;
  auto& nodes = capture.graph->nodes;
  nodes.push_back({std::move(work), stream.capture_after, stream.capture_lane});
  stream.capture_after = {nodes.size() - 1};
  return kSuccess;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (mode < kCaptureGlobal || mode > kCaptureRelaxed) return kInvalidValue;
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (stream->kind() == Stream::Kind::kLegacy) return kCaptureUnsupported;
    if (stream->capture != nullptr) return kIllegalState;
    const auto graph = std::make_shared<Graph>();
    graph->lanes = {&stream->context()};
    graph->held = std::make_unique<Held>(state);
    state.graphs[graph.get()] = graph;
    const auto capture = std::make_shared<Capture>();
    capture->id = ++state.captures_begun;
    capture->graph = graph;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->streams = {stream};
    state.captures.push_back(capture);
    stream->capture = capture;
    stream->capture_after.clear();
    stream->capture_lane = 0;
    return kSuccess;
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* out) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (out == nullptr) return kInvalidValue;
    if (stream->capture == nullptr) return kIllegalState;
    const auto capture = stream->capture;
    if (capture->streams.front() != stream) return kCaptureUnmatched;
    if (capture->mode != kCaptureRelaxed && capture->thread != std::this_thread::get_id())
      return kCaptureWrongThread;
    const CUresult result = capture->invalid    ? kCaptureInvalidated
                            : !joined(*capture) ? kCaptureUnjoined
                                                : kSuccess;
    end(state, *capture);
    *out = result == kSuccess ? capture->graph.get() : nullptr;
    if (result != kSuccess) state.graphs.erase(capture->graph.get());
    return result;
  });
}

CUresult cuStreamIsCapturing(CUstream handle, int* out) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (out == nullptr) return kInvalidValue;
    if (const CUresult may = check_legacy(state, *stream, false); may != kSuccess) return may;
    *out = status_of(*stream);
    return kSuccess;
  });
}

CUresult cuStreamGetCaptureInfo_v2(CUstream handle, int* status, uint64_t* id, CUgraph* graph,
                                   const void** after, size_t* count) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (status == nullptr) return kInvalidValue;
    if (const CUresult may = check_legacy(state, *stream, false); may != kSuccess) return may;
    *status = status_of(*stream);
    if (*status != kCapturing) return kSuccess;
    // Nodes are only told apart: no call takes one.
    auto& shown = stream->capture_shown;
    shown.clear();
    for (const size_t node : stream->capture_after)
      shown.push_back(pointer_of(number_of(stream->capture->graph.get()) + node + 1));
    if (id != nullptr) *id = stream->capture->id;
    if (graph != nullptr) *graph = stream->capture->graph.get();
    if (after != nullptr) *after = shown.data();
    if (count != nullptr) *count = shown.size();
    return kSuccess;
  });
}

CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
  return call(__func__, Needs::kDriver, [&](State&, Lock&, Context*) -> CUresult {
    if (mode == nullptr || *mode < kCaptureGlobal || *mode > kCaptureRelaxed) return kInvalidValue;
    std::swap(*mode, t_mode);
    return kSuccess;
  });
}

}  // namespace libcomm::cuda::doubled
