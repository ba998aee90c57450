// cuStream*: making, ending and asking of streams.
#include <algorithm>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

CUresult create(const char* name, CUstream* out, unsigned flags) {
  return call(name, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr || flags > kStreamNonBlocking) return kInvalidValue;
    const auto kind =
        flags == kStreamNonBlocking ? Stream::Kind::kNonBlocking : Stream::Kind::kBlocking;
    const auto made = std::make_shared<Stream>(state, *context, kind);
    context->streams.push_back(made);
    state.streams[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

// What both questions for the end of a stream refuse.
CUresult check_question(State& state, Stream& stream) {
  if (stream.capture != nullptr) return invalidate(*stream.capture);
  if (const CUresult legacy = check_legacy(state, stream); legacy != kSuccess) return legacy;
  return check_unsafe(state);
}

}  // namespace

CUresult cuStreamCreate(CUstream* out, unsigned flags) { return create(__func__, out, flags); }

CUresult cuStreamCreateWithPriority(CUstream* out, unsigned flags, int) {
  return create(__func__, out, flags);
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return kInvalidHandle;
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (stream->capture != nullptr) leave_capture(*stream);
    state.streams.erase(handle);
    stream->close();
    return kSuccess;
  });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext* out) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    const bool of_context = reinterpret_cast<uintptr_t>(handle) <= 2;
    if (of_context && context == nullptr) return kInvalidContext;
    Context& any = context != nullptr ? *context : state.contexts[0];
    const StreamRef stream = stream_of(state, any, handle);
    if (stream == nullptr) return kInvalidHandle;
    *out = &stream->context();
    return kSuccess;
  });
}

CUresult cuStreamGetFlags(CUstream handle, unsigned* out) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    *out = stream->kind() == Stream::Kind::kNonBlocking ? kStreamNonBlocking : 0;
    return kSuccess;
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr) return kInvalidHandle;
    if (const CUresult may = check_question(state, *stream); may != kSuccess) return may;
    if (const CUresult failed = stream->context().sticky.load(); failed != kSuccess) return failed;
    return reached(stream->so_far()) ? kSuccess : kNotReady;
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call(__func__, Needs::kContext,
              [&](State& state, Lock& lock, Context* context) -> CUresult {
                const StreamRef stream = stream_of(state, *context, handle);
                if (stream == nullptr) return kInvalidHandle;
                if (const CUresult may = check_question(state, *stream); may != kSuccess)
                  return may;
                return wait_for(state, lock, stream->context(), stream->so_far());
              });
}

CUresult cuCtxSynchronize() {
  return call(__func__, Needs::kContext,
              [&](State& state, Lock& lock, Context* context) -> CUresult {
                CUresult may = kSuccess;
                for (const StreamRef& each : context->streams) {
                  if (each->capture != nullptr && may == kSuccess) may = invalidate(*each->capture);
                }
                if (may == kSuccess) may = check_unsafe(state);
                return may != kSuccess ? may : wait_for_all(state, lock, *context);
              });
}

}  // namespace libcomm::cuda::doubled
