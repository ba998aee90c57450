#include "tests/doubles/cuda/state.h"

#include <pthread.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace libcomm::cuda::doubled {
namespace {

std::atomic<bool> g_fatal{true};
thread_local const char* t_call = "a test";  // for messages

// The lock is held over the fork, so that the child finds the settings whole.
void before_fork() { state().mutex.lock(); }
void after_fork_in_parent() { state().mutex.unlock(); }
State* g_state = nullptr;
State* g_of_parent = nullptr;  // still reachable: nothing of it is destroyed

void after_fork_in_child() {
  State* parent = g_state;
  if (parent->used) {
    g_of_parent = parent;
    g_state = new State;
    g_state->initialised = false;
    g_state->settings = parent->settings;
    g_state->faults = parent->faults;
    g_state->kernels = parent->kernels;
    forget_contexts();
    forget_thread_streams();
  }
  parent->mutex.unlock();
}

}  // namespace

State::State() {
  for (int i = 0; i < kMostDevices; ++i) {
    contexts[i].ordinal = i;
    contexts[i].legacy = std::make_shared<Stream>(*this, contexts[i], Stream::Kind::kLegacy);
    contexts[i].streams.push_back(contexts[i].legacy);
  }
}

State& state() {
  static const bool made = [] {
    g_state = new State;
    ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    return true;
  }();
  (void)made;
  return *g_state;
}

void die(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "CUDA double: %s: %s\n", t_call, text);
  std::abort();
}

CUresult misuse(Context* context, CUresult code, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (g_fatal.load()) die("%s", text);
  if (context != nullptr) fail(state(), *context, code);
  return code;
}

void set_fatal(bool fatal) { g_fatal.store(fatal); }

void name_thread(const char* name) { t_call = name; }

void fail(State& state, Context& context, CUresult code) {
  context.sticky.store(code);
  state.progress.notify_all();
}

std::string memory_name(uint64_t token) { return "cuda-double-" + std::to_string(token); }

CUresult enter(State& state, const char* name, Needs needs, Context** context) {
  t_call = name;
  if (HostThread::here()) die("called by a host function, which may not use CUDA");
  ++state.calls[name];
  if (const auto fault = state.faults.find(name); fault != state.faults.end()) {
    if (--fault->second.calls == 0) {
      const CUresult code = fault->second.code;
      state.faults.erase(fault);
      return code;
    }
  }
  if (needs == Needs::kNothing) return kSuccess;
  if (!state.initialised) return kNotInitialized;
  *context = current_context();
  if (needs == Needs::kDriver) return kSuccess;
  if (*context == nullptr) return kInvalidContext;
  if (!(*context)->active()) return kContextIsDestroyed;
  return (*context)->sticky.load();
}

}  // namespace libcomm::cuda::doubled
