// cuMemcpy*, cuMemset*: copies, with CUDA's rules for pageable host memory, which are why the
// library avoids it: what is read from it is staged before the call returns, what is written to it
// has arrived then.
#include <cstring>
#include <vector>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

// Work that a graph holds outlives what it was made for.
bool still_there(State& state, Context& context, const Reach& range) {
  const std::lock_guard lock(state.mutex);
  if (range.region == nullptr || !range.region->freed) return true;
  (void)misuse(&context, kIllegalAddress, "an operation uses the freed memory at %p",
               static_cast<void*>(range.region->base));
  return false;
}

Count& count_of(State& state, const Reach& dst, const Reach& src) {
  if (dst.on_device()) return src.on_device() ? state.d2d : state.h2d;
  return src.on_device() ? state.d2h : state.h2h;
}

void add(Count& count, size_t bytes) {
  ++count.operations;
  count.bytes += bytes;
}

struct Copy {
  Reach dst, src;
  size_t bytes = 0;
  bool pageable() const { return dst.pageable() || src.pageable(); }

  // What was reached at the call; pageable memory is read now.
  Work work(State& state) const {
    Copy copy = *this;
    std::shared_ptr<std::vector<std::byte>> staged;
    if (src.pageable()) {
      staged = std::make_shared<std::vector<std::byte>>(src.at, src.at + bytes);
      copy.src.at = staged->data();
    }
    return {[&state, copy, staged](Context& context) {
              if (!still_there(state, context, copy.dst) || !still_there(state, context, copy.src))
                return;
              std::memmove(copy.dst.at, copy.src.at, copy.bytes);
              add(count_of(state, copy.dst, copy.src), copy.bytes);
              if (copy.pageable()) add(state.pageable, copy.bytes);
            },
            {}};
  }
};

CUresult reach_both(State& state, Context& context, CUdeviceptr dst, CUdeviceptr src, size_t bytes,
                    Copy* copy) {
  if (dst == 0 || src == 0) return kInvalidValue;
  copy->bytes = bytes;
  const CUresult found = reach(state, &context, pointer_of(dst), bytes, &copy->dst, true);
  return found != kSuccess ? found
                           : reach(state, &context, pointer_of(src), bytes, &copy->src, true);
}

}  // namespace

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t bytes) {
  return call(__func__, Needs::kContext,
              [&](State& state, Lock& lock, Context* context) -> CUresult {
                if (const CUresult may = check_legacy(state, *context->legacy); may != kSuccess)
                  return may;
                if (const CUresult may = check_unsafe(state); may != kSuccess) return may;
                if (bytes == 0) return kSuccess;
                Copy copy;
                if (const CUresult found = reach_both(state, *context, dst, src, bytes, &copy);
                    found != kSuccess)
                  return found;
                const Mark end = context->legacy->enqueue(copy.work(state));
                // Between device memory CUDA does not wait.
                if (copy.dst.on_device() && copy.src.on_device()) return kSuccess;
                return wait_for(state, lock, *context, {end});
              });
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream handle) {
  return call(__func__, Needs::kContext,
              [&](State& state, Lock& lock, Context* current) -> CUresult {
                const StreamRef stream = stream_of(state, *current, handle);
                if (stream == nullptr) return kInvalidHandle;
                if (bytes == 0) return kSuccess;
                Copy copy;
                Context& context = stream->context();
                if (const CUresult found = reach_both(state, context, dst, src, bytes, &copy);
                    found != kSuccess)
                  return found;
                if (stream->capture != nullptr && copy.pageable())
                  return invalidate(*stream->capture);
                if (const CUresult put = submit(state, *stream, copy.work(state)); put != kSuccess)
                  return put;
                if (!copy.dst.pageable()) return kSuccess;
                return wait_for(state, lock, context, stream->so_far());
              });
}

CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t bytes, CUstream handle) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr || &stream->context() != context) return kInvalidHandle;
    if (bytes == 0) return kSuccess;
    Reach range;
    if (const CUresult found = reach(state, context, pointer_of(dst), bytes, &range);
        found != kSuccess)
      return found;
    if (range.pageable()) return kInvalidValue;
    return submit(state, *stream,
                  {[&state, range, value, bytes](Context& of) {
                     if (still_there(state, of, range)) std::memset(range.at, value, bytes);
                   },
                   {}});
  });
}

}  // namespace libcomm::cuda::doubled
