#include "src/base/fence.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace libcomm {
namespace detail {

std::atomic<bool> g_heavy_fences_work{false};

}  // namespace detail

namespace {

bool membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0) == 0; }

bool fence_all_threads() {
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) return true;
  // Not registered yet: at the first use.
  return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
         membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}

}  // namespace

void prepare_fences() {
  if (!detail::g_heavy_fences_work.load(std::memory_order_relaxed) && fence_all_threads())
    detail::g_heavy_fences_work.store(true, std::memory_order_relaxed);
}

void heavy_fence() {
  full_fence();
  // It worked once. If it does not any more, stores still reach the caches within microseconds.
  if (detail::g_heavy_fences_work.load(std::memory_order_relaxed) && !fence_all_threads())
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  full_fence();
}

}  // namespace libcomm
