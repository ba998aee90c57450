// What only the double can do: memory without a context, settings, faults and counters.
#include "tests/doubles/cuda/control.h"

#include <algorithm>
#include <cstring>

#include "tests/doubles/cuda/export.h"
#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

// Where a processor reaches it.
std::byte* for_host(State& state, const void* pointer, size_t bytes) {
  Reach range;
  if (reach(state, nullptr, pointer, bytes, &range) != kSuccess)
    die("a test touches %zu bytes at %p, which are not there", bytes, pointer);
  return range.at;
}

template <typename Match>
uint64_t bytes_of(const State& state, Match match) {
  uint64_t bytes = 0;
  for (const auto& [base, region] : state.memory.live()) {
    if (match(region->kind)) bytes += region->bytes;
  }
  return bytes;
}

uint64_t opened(const State& state) {
  uint64_t times = 0;
  for (const auto& [base, region] : state.memory.live())
    times += static_cast<uint64_t>(region->opened);
  return times;
}

bool put(State& state, const std::string& name, int value) {
  Settings& settings = state.settings;
  if (name == "dmabuf") return settings.dmabuf = value != 0, true;
  if (name == "chunks") return settings.chunks = value != 0, true;
  if (name == "descriptors") return settings.descriptors = value != 0, true;
  if (name == "fabric") return settings.fabric = value, true;
  if (name == "atomics") return settings.atomics = value != 0, true;
  if (name == "ordering") return settings.ordering = value, true;
  if (name == "initialised") return state.initialised = value != 0, true;
  if (name == "version") return settings.version = value, true;
  if (name == "multiprocessors") return settings.multiprocessors = value, true;
  if (name == "slow_us") return settings.slow_us = value, true;
  if (name == "channels") return settings.channels = value, true;
  if (name == "memory_kib") return settings.memory_kib = value, true;
  if (name == "fatal") return set_fatal(value != 0), true;
  if (name == "devices" && value >= 0 && value <= kMostDevices)
    return settings.devices = value, true;
  return false;
}

uint64_t count(const State& state, const std::string& name) {
  using Kind = Region::Kind;
  if (name == "d2d") return state.d2d.operations;
  if (name == "d2h") return state.d2h.operations;
  if (name == "h2d") return state.h2d.operations;
  if (name == "h2h") return state.h2h.operations;
  if (name == "pageable") return state.pageable.operations;
  if (name == "d2d_bytes") return state.d2d.bytes;
  if (name == "d2h_bytes") return state.d2h.bytes;
  if (name == "h2d_bytes") return state.h2d.bytes;
  if (name == "h2h_bytes") return state.h2h.bytes;
  if (name == "pageable_bytes") return state.pageable.bytes;
  if (name == "device_bytes")
    return bytes_of(state, [](Kind kind) { return kind == Kind::kDevice; });
  if (name == "chunk_bytes") return chunk_bytes(state, -1);
  if (name == "fabric_imports") return state.fabric_imports;
  if (name == "managed_bytes")
    return bytes_of(state, [](Kind kind) { return kind == Kind::kManaged; });
  if (name == "pinned_bytes")
    return bytes_of(state,
                    [](Kind kind) { return kind == Kind::kPinned || kind == Kind::kRegistered; });
  if (name == "streams") return state.streams.size();
  if (name == "events") return state.events.size();
  if (name == "modules") return state.modules.size();
  if (name == "graphs") return state.graphs.size() + state.executables.size();
  if (name == "user_objects") return state.user_objects.size();
  if (name == "ipc_open") return opened(state);
  die("cuda_double_count knows no \"%s\"", name.c_str());
}

Context& context_of(State& state, int ordinal) {
  if (ordinal < 0 || ordinal >= kMostDevices) die("there is no GPU %d", ordinal);
  return state.contexts[static_cast<size_t>(ordinal)];
}

void pause(CUstream handle, bool paused) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  Context* context = current_context();
  const StreamRef stream = stream_of(all, context != nullptr ? *context : all.contexts[0], handle);
  if (stream == nullptr) die("%p is no stream that could be paused", handle);
  stream->pause(paused);
}

}  // namespace

extern "C" {

EXPORT void* cuda_double_alloc(size_t bytes, int ordinal) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  const RegionRef made = all.memory.add_device(bytes, ordinal, nullptr);
  return made != nullptr ? made->base : nullptr;
}

EXPORT void cuda_double_free(void* pointer) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  const RegionRef found = all.memory.find(pointer);
  if (found != nullptr && found->base == pointer) all.memory.remove(found);
}

EXPORT void cuda_double_write(void* pointer, const void* from, size_t bytes) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  std::memcpy(for_host(all, pointer, bytes), from, bytes);
}

EXPORT void cuda_double_read(void* to, const void* pointer, size_t bytes) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  std::memcpy(to, for_host(all, pointer, bytes), bytes);
}

EXPORT int cuda_double_export(const void* pointer, size_t bytes) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  return export_memory(all, pointer, bytes);
}

EXPORT void cuda_double_set(const char* what, int value) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  if (!put(all, what, value)) die("cuda_double_set knows no \"%s\" of %d", what, value);
}

EXPORT void cuda_double_set_peer(int from, int to, int allowed) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  (void)context_of(all, from);
  (void)context_of(all, to);
  all.settings.peers[static_cast<size_t>(from)][static_cast<size_t>(to)] = allowed != 0;
}

EXPORT void cuda_double_fail(const char* call, int nth, int code) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  if (nth > 0)
    all.faults[call] = {nth, code};
  else
    all.faults.erase(call);
}

EXPORT void cuda_double_break(int ordinal, int code) {
  State& all = state();
  Lock lock(all.mutex);
  Context& context = context_of(all, ordinal);
  // No operation may miss that the context had failed.
  if (code == kSuccess)
    all.progress.wait(lock, [&] {
      return std::all_of(context.streams.begin(), context.streams.end(),
                         [](const StreamRef& each) { return each->idle(); });
    });
  fail(all, context, code);
}

EXPORT void cuda_double_pause(void* stream) { pause(stream, true); }
EXPORT void cuda_double_resume(void* stream) { pause(stream, false); }

EXPORT uint64_t cuda_double_count(const char* what) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  return count(all, what);
}

EXPORT uint64_t cuda_double_calls(const char* call) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  return all.calls[call];
}

EXPORT uint64_t cuda_double_copies() { return cuda_double_calls("cuMemcpy"); }

}  // extern "C"
}  // namespace libcomm::cuda::doubled
