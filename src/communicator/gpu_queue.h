// GpuQueue: what the works on GPU memory (gpu_work.h) of one communicator share: pinned memory,
// events, and the order of the graphs that may begin. It may outlive its communicator, since
// streams and graphs may still use it; then it is put aside, and ended by a later call of this
// process.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/base/status.h"
#include "src/communicator/device_calls.h"
#include "src/device/driver.h"
#include "src/device/kernels.h"
#include "src/device/memory.h"

namespace libcomm {

class GpuWork;

// What lies in pinned memory before the slots, each from a cache line of its own: the word that the
// engine writes, the words of the executor's kernels, the arguments of peer kernels.
inline constexpr size_t kPinnedLine = 64;
inline constexpr size_t kDeviceWordsAt = kPinnedLine;
constexpr size_t in_lines(size_t bytes) {
  return (bytes + kPinnedLine - 1) / kPinnedLine * kPinnedLine;
}
inline constexpr size_t kArgumentsAt = kDeviceWordsAt + in_lines(sizeof(DeviceWords));
inline constexpr size_t kPinnedHead = kArgumentsAt + in_lines(sizeof(cuda::LateArguments));

// A GPU of this process, as a call has found it.
struct GpuPlace {
  cuda::CUcontext context = nullptr;
  int ordinal = -1;
};

// What the GPU works of one communicator share. Outlives the communicator where a graph still has
// work of it.
class GpuQueue {
 public:
  // Allocates pinned memory: two slots of at least slot_bytes. With `context` current.
  // kUnhandledCuda.
  static Result<std::shared_ptr<GpuQueue>> create(const cuda::Driver& driver, const GpuPlace& gpu,
                                                  size_t slot_bytes);
  // Waits until streams have taken what is in the slots, or leaves them to the process when they
  // will not.
  GpuQueue(const GpuQueue&) = delete;
  GpuQueue& operator=(const GpuQueue&) = delete;
  // Ends queues that nobody has any more, once their streams have taken what is in the slots. Waits
  // so long for that at most. The last reference may be given up anywhere, also where the driver
  // must not be called; this is for calls.
  static void end_unused(double seconds);
  // Lets go of memory that other processes have freed, if that keeps nobody waiting
  // (cuda::end_stale).
  static void end_stale();
  // The communicator has ended, and a stream or a graph may still have this one. Until it has not,
  // no pinned memory is freed: that would wait for the stream, which may wait for the caller.
  static void leave(const std::shared_ptr<GpuQueue>& queue);

  const GpuPlace& gpu() const { return gpu_; }
  size_t pinned_bytes() const { return pinned_.size(); }
  // The communicator ends, before its engine: graphs that are launched later do nothing.
  void close();
  // Kernels of the executor give up, also those that begin later. Any thread.
  void abort_kernels() noexcept;
  // What kernels in the streams use; until they are over.
  void keep(std::shared_ptr<DeviceCalls> calls) { device_calls_ = std::move(calls); }
  // Some call was captured: the engine may get work at any time.
  bool has_graphs() const { return has_graphs_; }

 private:
  friend class GpuWork;
  GpuQueue(const cuda::Driver& driver, const GpuPlace& gpu, size_t slot_bytes)
      : driver_(driver), gpu_(gpu), slot_bytes_(slot_bytes) {}

  ~GpuQueue() = default;
  // end_unused() without what may wait for the program's streams.
  static void end_unused_queues(bool* waiting, bool* held_up);
  bool is_over() const;  // no stream uses its memory
  void end();

  const cuda::Driver& driver_;
  const GpuPlace gpu_;
  const size_t slot_bytes_;
  const unsigned generation_ = fork_generation();
  cuda::PinnedBuffer pinned_;  // the word, a line; the executor's; arguments of kernels; the slots
  std::shared_ptr<DeviceCalls> device_calls_;
  // Of works whose kernels may still run, though they have given up.
  std::vector<std::shared_ptr<const DeviceCalls::Program>> given_up_;
  cuda::DeviceBuffer copies_;                     // of messages whose memory others do not reach
  cuda::Event used_;                              // recorded after the last use of the slots
  cuda::Event joint_;                             // joins the streams of a group
  std::shared_ptr<const cuda::Kernels> kernels_;  // where peer kernels are used
  uint32_t issued_ = 0;                           // stages of works in the slots
  uint32_t launched_ = 0;                         // kernels of the executor, but for graphs'
  // The graph that the last captured work is in, and what comes after that work.
  uint64_t last_capture_ = 0;
  cuda::Event captured_;
  bool has_graphs_ = false;
  bool lost_ = false;  // a stream may use the slots after what used_ tells
  std::mutex mutex_;
  std::condition_variable changed_;
  // With mutex_:
  bool closed_ = false;
  std::deque<std::shared_ptr<GpuWork>> graphs_;  // works of graphs that may begin
};

}  // namespace libcomm
