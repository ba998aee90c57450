// cuStreamWaitValue32, cuStreamWriteValue32 and cuLaunchHostFunc: where streams meet other streams,
// other processes and the program.
#include <atomic>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr unsigned kWaitAnd = 2, kWaitNor = 3, kFlush = 1u << 30;  // CUstreamWaitValue_flags
constexpr unsigned kNoBarrier = 1;                                 // CUstreamWriteValue_flags

bool holds(uint32_t there, uint32_t value, unsigned how) {
  switch (how) {
    case kWaitGreaterOrEqual:
      return static_cast<int32_t>(there - value) >= 0;
    case kWaitEqual:
      return there == value;
    case kWaitAnd:
      return (there & value) != 0;
    default:
      return ~(there | value) != 0;
  }
}

// The word at `address` for an operation on a stream of the current context.
CUresult word_of(State& state, Context* context, const StreamRef& stream, CUdeviceptr address,
                 Reach* word) {
  if (stream == nullptr || &stream->context() != context) return kInvalidHandle;
  if (address == 0 || address % sizeof(uint32_t) != 0) return kInvalidValue;
  const CUresult found = reach(state, context, pointer_of(address), sizeof(uint32_t), word);
  if (found != kSuccess) return found;
  if (word->pageable())
    return misuse(context, kIllegalAddress, "the word at %p is pageable host memory",
                  pointer_of(address));
  return kSuccess;
}

bool was_freed(Context* context, const Reach& word) {
  if (!word.region->freed) return false;
  (void)misuse(context, kIllegalAddress, "the word at %p was freed before its operation",
               static_cast<void*>(word.at));
  return true;
}

std::atomic_ref<uint32_t> word_in(const Reach& word) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(word.at));
}

}  // namespace

CUresult cuStreamWaitValue32_v2(CUstream handle, CUdeviceptr address, uint32_t value,
                                unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const unsigned how = flags & ~kFlush;
    if (how > kWaitNor) return kInvalidValue;
    const StreamRef stream = stream_of(state, *context, handle);
    Reach word;
    if (const CUresult found = word_of(state, context, stream, address, &word); found != kSuccess)
      return found;
    return submit(state, *stream, {{}, [context, word, value, how] {
                                     return was_freed(context, word) ||
                                            holds(word_in(word).load(std::memory_order_acquire),
                                                  value, how);
                                   }});
  });
}

CUresult cuStreamWriteValue32_v2(CUstream handle, CUdeviceptr address, uint32_t value,
                                 unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    if (flags > kNoBarrier) return kInvalidValue;
    const StreamRef stream = stream_of(state, *context, handle);
    Reach word;
    if (const CUresult found = word_of(state, context, stream, address, &word); found != kSuccess)
      return found;
    return submit(state, *stream,
                  {[&state, word, value](Context& of) {
                     const std::lock_guard lock(state.mutex);
                     if (!was_freed(&of, word))
                       word_in(word).store(value, std::memory_order_release);
                   },
                   {}});
  });
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* argument) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const StreamRef stream = stream_of(state, *context, handle);
    if (stream == nullptr || &stream->context() != context) return kInvalidHandle;
    if (function == nullptr) return kInvalidValue;
    return submit(state, *stream,
                  {[&state, function, argument](Context&) {
                     Lock lock(state.mutex);
                     bool done = false;
                     state.host.post(state, function, argument, [&] {
                       done = true;
                       state.progress.notify_all();
                     });
                     state.progress.wait(lock, [&] { return done; });
                   },
                   {}});
  });
}

}  // namespace libcomm::cuda::doubled
