// cuEvent* and cuStreamWaitEvent.
#include <algorithm>

#include "tests/doubles/cuda/event.h"
#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

EventRef event_of(State& state, CUevent handle) {
  const auto found = state.events.find(handle);
  if (found != state.events.end()) return found->second;
  (void)misuse(nullptr, kInvalidHandle, "%p is no live event", handle);
  return nullptr;
}

// An event of a capture has no moment of its own.
CUresult check_question(State& state, const Event& event) {
  if (event.capture != nullptr) return invalidate(*event.capture, kCapturedEvent);
  return check_unsafe(state);
}

// The stream goes on after the event, as nodes of the event's capture.
CUresult join(Stream& stream, const Event& event) {
  Capture& capture = *event.capture;
  if (capture.ended) return kCapturedEvent;
  if (stream.kind() == Stream::Kind::kLegacy) return invalidate(capture, kCaptureImplicit);
  if (capture.invalid) return kCaptureInvalidated;
  if (stream.capture == nullptr) {
    stream.capture = event.capture;
    stream.capture_after.clear();
    stream.capture_lane = capture.graph->lanes.size();
    capture.streams.push_back(stream.shared_from_this());
    capture.graph->lanes.push_back(&stream.context());
  } else if (stream.capture != event.capture) {
    (void)invalidate(*stream.capture);
    return invalidate(capture, kCaptureMerge);
  }
  for (const size_t node : event.nodes) {
    auto& after = stream.capture_after;
    if (std::find(after.begin(), after.end(), node) == after.end()) after.push_back(node);
  }
  return kSuccess;
}

}  // namespace

CUresult cuEventCreate(CUevent* out, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || flags > 3) return kInvalidValue;
    const auto made = std::make_shared<Event>();
    made->context = context;
    state.events[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

CUresult cuEventDestroy_v2(CUevent handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    if (event_of(state, handle) == nullptr) return kInvalidHandle;
    state.events.erase(handle);
    return kSuccess;
  });
}

CUresult cuEventRecord(CUevent handle, CUstream on) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const EventRef event = event_of(state, handle);
    const StreamRef stream = stream_of(state, *context, on);
    if (event == nullptr || stream == nullptr) return kInvalidHandle;
    if (event->context != &stream->context()) return kInvalidHandle;
    if (const CUresult may = check_legacy(state, *stream); may != kSuccess) return may;
    if (stream->capture != nullptr) {
      if (stream->capture->invalid) return kCaptureInvalidated;
      event->mark = {};
      event->capture = stream->capture;
      event->nodes = stream->capture_after;
      return kSuccess;
    }
    event->capture = nullptr;
    event->nodes.clear();
    event->mark = stream->enqueue({});
    return kSuccess;
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent of, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (flags > 1) return kInvalidValue;
    const StreamRef stream = stream_of(state, *context, handle);
    const EventRef event = event_of(state, of);
    if (event == nullptr || stream == nullptr) return kInvalidHandle;
    if (event->capture != nullptr) return join(*stream, *event);
    if (stream->capture != nullptr) return invalidate(*stream->capture, kCaptureIsolation);
    if (const CUresult may = check_legacy(state, *stream); may != kSuccess) return may;
    if (event->mark.stream != nullptr) (void)stream->enqueue({}, {event->mark});
    return kSuccess;
  });
}

CUresult cuEventQuery(CUevent handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    const EventRef event = event_of(state, handle);
    if (event == nullptr) return kInvalidHandle;
    if (const CUresult may = check_question(state, *event); may != kSuccess) return may;
    if (const CUresult failed = event->context->sticky.load(); failed != kSuccess) return failed;
    if (event->mark.stream == nullptr) return kSuccess;
    return reached({event->mark}) ? kSuccess : kNotReady;
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock& lock, Context*) -> CUresult {
    const EventRef event = event_of(state, handle);
    if (event == nullptr) return kInvalidHandle;
    if (const CUresult may = check_question(state, *event); may != kSuccess) return may;
    if (event->mark.stream == nullptr) return kSuccess;
    return wait_for(state, lock, *event->context, {event->mark});
  });
}

}  // namespace libcomm::cuda::doubled
