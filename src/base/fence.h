// Fences for two threads that each store one word and then load the other's, of which at least one
// must see the other's store (Dekker).
//
// A full fence waits until everything that this thread has stored is in its cache, lines that it
// has to fetch from other processors included. Where one side of the pair is rare, the other gets
// by with a light fence, which keeps the compiler from reordering and no more: the rare side makes
// all threads of the process pass a full fence, by membarrier(2).
#pragma once

#include <atomic>
#include <cstdint>

namespace libcomm {

// Everything stored before is visible to others before anything loaded after is taken.
inline void full_fence() {
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer does not model fences; a read-modify-write orders the same on what we build
  // for.
  static std::atomic<uint32_t> word;
  (void)word.fetch_add(0, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

namespace detail {
extern std::atomic<bool> g_heavy_fences_work;
}  // namespace detail

// Once before the first pair, by any thread: where the kernel has no heavy fences, light ones are
// full.
void prepare_fences();

inline void light_fence() {
  if (detail::g_heavy_fences_work.load(std::memory_order_relaxed))
    std::atomic_signal_fence(std::memory_order_seq_cst);
  else
    full_fence();
}

// A full fence here and in all other threads of this process; some microseconds.
void heavy_fence();

}  // namespace libcomm
