#include "src/communicator/gpu_queue.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "src/base/clock.h"
#include "src/device/scopes.h"

namespace libcomm {
namespace {

using namespace cuda;  // NOLINT: the driver's names are long enough

// Queues that nobody has any more.
ForkMutex& g_unused_mutex = *new ForkMutex;
std::vector<GpuQueue*>& g_unused = *new std::vector<GpuQueue*>;
// Those that streams or graphs may have longer than their communicators; under the same mutex.
std::vector<std::weak_ptr<GpuQueue>>& g_left = *new std::vector<std::weak_ptr<GpuQueue>>;
// A forked child has nothing of its parent's CUDA: these are neither ended nor waited for.
std::vector<GpuQueue*>& g_inherited = *new std::vector<GpuQueue*>;
unsigned g_generation = fork_generation();  // of what is in g_left

void put_aside(GpuQueue* queue) {
  const std::lock_guard lock(g_unused_mutex);
  g_unused.push_back(queue);
}

// With g_unused_mutex.
bool some_are_left() {
  if (g_generation != fork_generation()) g_left.clear();
  g_generation = fork_generation();
  std::erase_if(g_left, [](const auto& queue) { return queue.expired(); });
  return !g_left.empty();
}

}  // namespace

Result<std::shared_ptr<GpuQueue>> GpuQueue::create(const Driver& driver, const GpuPlace& gpu,
                                                   size_t slot_bytes) {
  bool waiting = false, held_up = false;
  end_unused_queues(&waiting, &held_up);
  const OutsideCapture outside(driver);
  std::shared_ptr<GpuQueue> queue(new GpuQueue(driver, gpu, in_lines(slot_bytes)), put_aside);
  COMM_ASSIGN(queue->pinned_,
              PinnedBuffer::take(driver, gpu.context, kPinnedHead + 2 * queue->slot_bytes_));
  std::memset(queue->pinned_.data(), 0, kPinnedHead);
  COMM_ASSIGN(queue->used_, Event::create(driver));
  COMM_ASSIGN(queue->joint_, Event::create(driver));
  COMM_ASSIGN(queue->captured_, Event::create(driver));
  return queue;
}

bool GpuQueue::is_over() const {
  const ContextScope scope(driver_, gpu_.context);
  const OutsideCapture outside(driver_);
  return !lost_ && scope.status() &&
         (used_.get() == nullptr || driver_.event_query(used_.get()) == kSuccess);
}

void GpuQueue::end() {
  const ContextScope scope(driver_, gpu_.context);
  const OutsideCapture outside(driver_);
  used_.end();
  joint_.end();
  captured_.end();
  pinned_.spare();
  device_calls_.reset();
  given_up_.clear();
  if (kernels_)
    end_when_idle(Ending::kWithCommunicators,
                  [kernels = std::move(kernels_)]() mutable { kernels.reset(); });
  delete this;
}

void GpuQueue::leave(const std::shared_ptr<GpuQueue>& queue) {
  const std::lock_guard lock(g_unused_mutex);
  (void)some_are_left();
  g_left.push_back(queue);
}

void GpuQueue::end_unused_queues(bool* waiting, bool* held_up) {
  std::vector<GpuQueue*> unused;
  {
    const std::lock_guard lock(g_unused_mutex);
    unused.swap(g_unused);
    const auto inherited = std::partition(unused.begin(), unused.end(), [](const GpuQueue* queue) {
      return queue->generation_ == fork_generation();
    });
    g_inherited.insert(g_inherited.end(), inherited, unused.end());
    unused.erase(inherited, unused.end());
    *held_up = some_are_left();
  }
  *waiting = false;
  for (GpuQueue* queue : unused) {
    if (queue->is_over()) {
      queue->end();
    } else {
      *waiting = *waiting || !queue->lost_;
      put_aside(queue);
    }
  }
}

void GpuQueue::end_unused(double seconds) {
  const Driver* driver = Driver::found();
  const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
  for (;;) {
    bool waiting = false, held_up = false;
    end_unused_queues(&waiting, &held_up);
    if (driver != nullptr && !held_up) PinnedBuffer::free_spare(*driver);
    if (!waiting || Clock::now() >= until) return;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

void GpuQueue::end_stale() {
  {
    const std::lock_guard lock(g_unused_mutex);
    if (some_are_left()) return;
  }
  cuda::end_stale(*Driver::found());
}

void GpuQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void GpuQueue::abort_kernels() noexcept {
  auto* words = reinterpret_cast<DeviceWords*>(pinned_.data() + kDeviceWordsAt);
  std::atomic_ref<uint32_t>(words->abort).store(1, std::memory_order_release);
}

}  // namespace libcomm
