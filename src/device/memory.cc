#include "src/device/memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "src/base/fork_mutex.h"
#include "src/device/scopes.h"

namespace libcomm::cuda {
namespace {

struct Spare {
  CUcontext context;
  void* data;
  size_t bytes;
};
ForkMutex& g_spare_mutex = *new ForkMutex;
std::vector<Spare>& g_spare = *new std::vector<Spare>;
struct End {
  Ending when;
  std::function<void()> end;
};
std::vector<End>& g_ends = *new std::vector<End>;
std::atomic<int> g_stale{0};  // of them that are to end soon, or have ended
pid_t g_owner = -1;           // of what is in both; a forked child has nothing of its parent's CUDA
std::vector<End>& g_inherited = *new std::vector<End>;

// With g_spare_mutex.
void forget_the_parents() {
  const pid_t self = ::getpid();
  if (std::exchange(g_owner, self) == self) return;
  g_spare.clear();
  // Neither called nor destroyed: what they hold is the parent's.
  std::move(g_ends.begin(), g_ends.end(), std::back_inserter(g_inherited));
  g_ends.clear();
}
std::mutex& g_begin_mutex = *new std::mutex;  // held while the GPU is waited for: no ForkMutex
std::atomic<int> g_pending{0};
std::atomic<int> g_graphs{0};  // grows with g_begin_mutex

// With g_begin_mutex.
bool somebody_may_wait() {
  return g_pending.load(std::memory_order_acquire) != 0 ||
         g_graphs.load(std::memory_order_acquire) != 0;
}

}  // namespace

MemoryPlace place_of(const Driver& driver, const void* address) {
  MemoryPlace place;
  unsigned type = 0;
  if (driver.pointer_get(&type, kAttributeMemoryType, number_of(address)) != kSuccess) return place;
  place.known = true;
  unsigned managed = 0;
  const bool is_managed =
      driver.pointer_get(&managed, kAttributeIsManaged, number_of(address)) == kSuccess &&
      managed != 0;
  if (type != kTypeDevice && !is_managed) return place;
  place.kind = is_managed ? MemoryPlace::Kind::kManaged : MemoryPlace::Kind::kGpu;
  int ordinal = -1;
  if (driver.pointer_get(&ordinal, kAttributeOrdinal, number_of(address)) == kSuccess)
    place.ordinal = ordinal;
  return place;
}

bool can_read(const void* address) {
  char byte = 0;
  const iovec to{&byte, 1};
  const iovec from{const_cast<void*>(address), 1};
  // Where the call is not allowed, nothing is known.
  return ::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) == 1 || errno != EFAULT;
}

CUcontext current_context(const Driver& driver) {
  CUcontext context = nullptr;
  return driver.context_current(&context) == kSuccess ? context : nullptr;
}

CUresult find_context(const Driver& driver, const void* address, CUcontext* context) {
  if (driver.pointer_get(context, kAttributeContext, number_of(address)) == kSuccess &&
      *context != nullptr)
    return kSuccess;
  // Memory of cuMemCreate and of pools has no context of its own: that of its GPU does.
  CUdevice device = 0;
  const CUresult found = driver.device_get(&device, place_of(driver, address).ordinal);
  return found == kSuccess ? driver.primary_retain(context, device) : found;
}

Result<PinnedBuffer> PinnedBuffer::take(const Driver& driver, CUcontext context, size_t bytes) {
  PinnedBuffer buffer;
  buffer.context_ = context;
  {
    const std::lock_guard lock(g_spare_mutex);
    forget_the_parents();
    const auto fits = [&](const Spare& spare) {
      return spare.context == context && spare.bytes >= bytes && spare.bytes <= 2 * bytes;
    };
    const auto found = std::find_if(g_spare.begin(), g_spare.end(), fits);
    if (found != g_spare.end()) {
      buffer.data_ = found->data;
      buffer.bytes_ = found->bytes;
      g_spare.erase(found);
      return buffer;
    }
  }
  COMM_TRY(driver.check(driver.host_alloc(&buffer.data_, bytes, kPortable | kDeviceMap),
                        "cannot allocate pinned host memory (cuMemHostAlloc)"));
  buffer.bytes_ = bytes;
  return buffer;
}

void PinnedBuffer::spare() noexcept {
  if (data_ == nullptr) return;
  try {
    const std::lock_guard lock(g_spare_mutex);
    forget_the_parents();
    g_spare.push_back({context_, data_, bytes_});
  } catch (const std::exception&) {
    // Out of memory: this stays pinned.
  }
  data_ = nullptr;
}

void PinnedBuffer::free_spare(const Driver& driver) {
  const std::lock_guard nobody_begins(g_begin_mutex);
  if (somebody_may_wait()) return;
  std::vector<Spare> spare;
  std::vector<End> ends;
  {
    const std::lock_guard lock(g_spare_mutex);
    forget_the_parents();
    spare.swap(g_spare);
    ends.swap(g_ends);
  }
  const OutsideCapture outside(driver);
  for (const End& each : ends) each.end();
  for (const Spare& each : spare) {
    const ContextScope scope(driver, each.context);
    if (scope.status()) (void)driver.host_free(each.data);
  }
}

Result<DeviceBuffer> DeviceBuffer::allocate(const Driver& driver, CUcontext context, size_t bytes) {
  const ContextScope scope(driver, context);
  COMM_TRY(scope.status());
  const OutsideCapture outside(driver);
  DeviceBuffer buffer;
  COMM_TRY(driver.check(
      driver.memory_alloc(&buffer.at_, bytes),
      fmt::format("cannot allocate {} bytes of GPU memory (cuMemAlloc)", bytes).c_str()));
  buffer.driver_ = &driver;
  buffer.context_ = context;
  buffer.bytes_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (at_ == 0) return;
  end_when_idle(Ending::kWithCommunicators, [&driver = *driver_, context = context_, at = at_] {
    const ContextScope scope(driver, context);
    if (scope.status()) (void)driver.memory_free(at);
  });
}

void end_when_idle(Ending when, std::function<void()> end) noexcept {
  try {
    const std::lock_guard lock(g_spare_mutex);
    forget_the_parents();
    g_ends.push_back({when, std::move(end)});
    if (when == Ending::kSoon) g_stale.fetch_add(1, std::memory_order_release);
  } catch (const std::exception&) {
    // Out of memory: the process keeps what should have ended.
  }
}

void end_stale(const Driver& driver) {
  if (g_stale.load(std::memory_order_acquire) == 0) return;
  const std::unique_lock nobody_begins(g_begin_mutex, std::try_to_lock);
  if (!nobody_begins || somebody_may_wait()) return;
  std::vector<End> ends;
  {
    const std::lock_guard lock(g_spare_mutex);
    forget_the_parents();
    const auto soon = std::stable_partition(
        g_ends.begin(), g_ends.end(), [](const End& each) { return each.when != Ending::kSoon; });
    std::move(soon, g_ends.end(), std::back_inserter(ends));
    g_ends.erase(soon, g_ends.end());
    g_stale.store(0, std::memory_order_release);
  }
  const OutsideCapture outside(driver);
  for (const End& each : ends) each.end();
}

void PendingWork::begin() {
  const std::lock_guard lock(g_begin_mutex);
  begin_in_host_function();
}

void PendingWork::begin_in_host_function() noexcept {
  g_pending.fetch_add(1, std::memory_order_acq_rel);
}

void PendingWork::end() noexcept { g_pending.fetch_sub(1, std::memory_order_acq_rel); }

void PendingWork::graph_made() {
  const std::lock_guard lock(g_begin_mutex);
  g_graphs.fetch_add(1, std::memory_order_acq_rel);
}

void PendingWork::graph_gone() noexcept { g_graphs.fetch_sub(1, std::memory_order_acq_rel); }

Result<Event> Event::create(const Driver& driver) {
  Event event;
  COMM_TRY(driver.check(driver.event_create(&event.event_, kEventNoTiming), "cuEventCreate"));
  event.driver_ = &driver;
  return event;
}

}  // namespace libcomm::cuda
