// State: all that the driver knows in one process, under one lock; and how calls enter it.
//
// It is never destroyed, so that threads which outlive main find it. A fork leaves the child that
// of its parent if that had not initialised the driver, and otherwise a new, uninitialised one.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "tests/doubles/cuda/calls.h"
#include "tests/doubles/cuda/context.h"
#include "tests/doubles/cuda/event.h"
#include "tests/doubles/cuda/graph.h"
#include "tests/doubles/cuda/host_thread.h"
#include "tests/doubles/cuda/memory.h"
#include "tests/doubles/cuda/module.h"
#include "tests/doubles/cuda/stream.h"

namespace libcomm::cuda::doubled {

// What tests set; kept over a fork.
struct Settings {
  Settings() {
    for (auto& row : peers) row.fill(true);
    if (const char* value = std::getenv("CUDA_DOUBLE_FABRIC")) fabric = std::atoi(value);
  }
  bool dmabuf = true, chunks = true, descriptors = true;
  int fabric = 0;
  bool atomics = false;  // over the links between GPUs, as NVLink has them
  int ordering = 0, version = 13000, devices = 3, multiprocessors = 4;
  int slow_us = 0;      // before each operation
  int channels = 0;     // hardware queues; 0: one for each stream
  int memory_kib = -1;  // of each device; -1: no limit
  std::array<std::array<bool, kMostDevices>, kMostDevices> peers;
};

struct Fault {
  int calls = 0;  // the one that fails, counted from now
  CUresult code = kSuccess;
};

struct Count {
  std::atomic<uint64_t> operations{0}, bytes{0};
};

struct State {
  State();

  std::mutex mutex;
  std::condition_variable progress;  // an operation was done, or a context has failed

  bool initialised = true;  // so also without cuInit: tests of memory alone need none
  bool used = false;        // cuInit was called, or a stream has a thread
  Settings settings;
  std::map<std::string, Fault> faults;
  std::map<std::string, std::shared_ptr<Kernel>> kernels;

  std::array<Context, kMostDevices> contexts;
  Memory memory;
  std::map<CUmemHandle, std::shared_ptr<Chunk>> chunks;  // that have a handle
  CUmemHandle chunks_made = 0;
  uint64_t fabric_imports = 0;  // so far
  std::map<void*, StreamRef> streams;
  std::map<void*, EventRef> events;
  std::map<void*, std::shared_ptr<Module>> modules;
  std::map<void*, std::shared_ptr<Function>> functions;
  std::map<void*, GraphRef> graphs;
  std::map<void*, std::shared_ptr<GraphExec>> executables;
  std::map<void*, std::shared_ptr<UserObject>> user_objects;
  std::vector<std::shared_ptr<Capture>> captures;  // not ended
  uint64_t captures_begun = 0;
  size_t streams_made = 0;
  struct Channel {
    uint64_t taken = 0, issued = 0;
  };
  std::vector<Channel> channels;
  HostThread host;

  std::map<std::string, uint64_t> calls;  // made so far, by name
  Count d2d, d2h, h2d, h2h, pageable;
};

State& state();

// Ends the process with a message on stderr, which begins with the call of this thread.
[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char* format, ...);
// A use that is an error on a GPU: ends the process; where the test has set "fatal" to 0 it makes
// `code` the error of all that follows in that context (null: of this call alone).
__attribute__((format(printf, 3, 4))) CUresult misuse(Context* context, CUresult code,
                                                      const char* format, ...);
void set_fatal(bool fatal);
// What messages from this thread begin with until it makes a call.
void name_thread(const char* name);
// The context fails: all later calls return that error. With the lock.
void fail(State& state, Context& context, CUresult code);

std::string memory_name(uint64_t token);
// Whether the GPU has so many bytes left; those of cuMemCreate that this process has.
bool has_room(const State& state, int ordinal, size_t bytes);
uint64_t chunk_bytes(const State& state, int ordinal);

enum class Needs { kNothing, kDriver, kContext };

// What every call checks before its own work: with the lock.
CUresult enter(State& state, const char* name, Needs needs, Context** context);

// `body(state, lock, context)` with the lock held, unless the call fails before.
template <typename Body>
CUresult call(const char* name, Needs needs, Body body) {
  State& all = state();
  Lock lock(all.mutex);
  Context* context = nullptr;
  if (const CUresult entered = enter(all, name, needs, &context); entered != kSuccess)
    return entered;
  return body(all, lock, context);
}

}  // namespace libcomm::cuda::doubled
