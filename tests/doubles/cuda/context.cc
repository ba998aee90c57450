// cuCtx*, cuDevicePrimaryCtx*: the primary contexts, the stack of each thread, and peer access.
#include <algorithm>
#include <vector>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

thread_local std::vector<Context*> t_stack;

Context* context_of(State& state, CUcontext handle) {
  for (Context& each : state.contexts) {
    if (&each == handle && each.was_active) return &each;
  }
  return nullptr;
}

template <typename Map, typename Of>
void erase_of(Map* map, Of of) {
  std::erase_if(*map, [&](const auto& entry) { return of(*entry.second); });
}

// All that the context has ends with it.
void destroy(State& state, Lock& lock, Context* context) {
  (void)wait_for_all(state, lock, *context);
  const auto streams = context->streams;
  for (const StreamRef& each : streams) {
    if (each->capture != nullptr) leave_capture(*each);
    if (state.streams.erase(each.get()) > 0) each->close();
  }
  erase_of(&state.events, [&](const Event& each) { return each.context == context; });
  erase_of(&state.functions, [&](const Function& each) { return each.module->context == context; });
  erase_of(&state.modules, [&](const Module& each) { return each.context == context; });
  std::vector<RegionRef> regions;
  for (const auto& [base, region] : state.memory.live()) {
    if (region->context == context) regions.push_back(region);
  }
  for (const RegionRef& each : regions) state.memory.remove(each);
  context->peers.clear();
  context->sticky.store(kSuccess);
}

}  // namespace

Context* current_context() { return t_stack.empty() ? nullptr : t_stack.back(); }
void forget_contexts() { t_stack.clear(); }

CUresult cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice device) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    if (device < 0 || device >= state.settings.devices) return kInvalidDevice;
    Context& context = state.contexts[device];
    ++context.retained;
    context.was_active = true;
    *out = &context;
    return kSuccess;
  });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock& lock, Context*) -> CUresult {
    if (device < 0 || device >= state.settings.devices) return kInvalidDevice;
    Context& context = state.contexts[device];
    if (!context.active()) return kInvalidContext;
    if (--context.retained == 0) destroy(state, lock, &context);
    return kSuccess;
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    Context* context = context_of(state, handle);
    if (context == nullptr) return kInvalidContext;
    if (!context->active()) return kContextIsDestroyed;
    t_stack.push_back(context);
    return kSuccess;
  });
}

CUresult cuCtxPopCurrent_v2(CUcontext* out) {
  return call(__func__, Needs::kDriver, [&](State&, Lock&, Context* context) -> CUresult {
    if (context == nullptr) return kInvalidContext;
    t_stack.pop_back();
    if (out != nullptr) *out = context;
    return kSuccess;
  });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    Context* context = context_of(state, handle);
    if (handle != nullptr && context == nullptr) return kInvalidContext;
    if (!t_stack.empty()) t_stack.pop_back();
    if (context != nullptr) t_stack.push_back(context);
    return kSuccess;
  });
}

CUresult cuCtxGetCurrent(CUcontext* out) {
  return call(__func__, Needs::kDriver, [&](State&, Lock&, Context* context) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    *out = context;
    return kSuccess;
  });
}

CUresult cuCtxGetDevice(CUdevice* out) {
  return call(__func__, Needs::kContext, [&](State&, Lock&, Context* context) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    *out = context->ordinal;
    return kSuccess;
  });
}

CUresult cuDeviceCanAccessPeer(int* out, CUdevice from, CUdevice to) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const int devices = state.settings.devices;
    if (from < 0 || to < 0 || from >= devices || to >= devices) return kInvalidDevice;
    if (out == nullptr) return kInvalidValue;
    *out = from != to && state.settings.peers[from][to] ? 1 : 0;
    return kSuccess;
  });
}

CUresult cuDeviceGetP2PAttribute(int* out, int attribute, CUdevice from, CUdevice to) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const int devices = state.settings.devices;
    if (from < 0 || to < 0 || from >= devices || to >= devices || from == to) return kInvalidDevice;
    if (out == nullptr || attribute != kP2pNativeAtomics) return kInvalidValue;
    *out = state.settings.atomics ? 1 : 0;
    return kSuccess;
  });
}

CUresult cuCtxEnablePeerAccess(CUcontext handle, unsigned flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const Context* peer = context_of(state, handle);
    if (flags != 0) return kInvalidValue;
    if (peer == nullptr || !peer->active()) return kInvalidContext;
    if (peer == context) return kInvalidDevice;
    if (!state.settings.peers[context->ordinal][peer->ordinal]) return kPeerUnsupported;
    return context->peers.insert(peer->ordinal).second ? kSuccess : kPeerAlreadyEnabled;
  });
}

}  // namespace libcomm::cuda::doubled
