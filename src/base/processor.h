// Hints to the processor: which cache lines are used next (any address is allowed), and which are
// for others, and that this thread only waits.
#pragma once

namespace libcomm {

// Fetches a line that is going to be read.
inline void prefetch_for_reading(const void* line) { __builtin_prefetch(line, 0); }

// Makes this processor the line's owner, so that a store to it later need not wait for that.
inline void prefetch_for_writing(const void* line) {
#if defined(__x86_64__) || defined(__i386__)
  // GCC's builtin makes an ordinary prefetch of it unless told that the processor has this one; on
  // those that have not it does nothing.
  asm volatile("prefetchw (%0)" : : "r"(line));
#else
  __builtin_prefetch(line, 1);
#endif
}

// Moves a line that has been written down to a cache which other processors share, where they find
// it sooner (Intel SDM, CLDEMOTE; processors that do not have it take it for a NOP).
inline void demote(const void* line) {
#if defined(__x86_64__) || defined(__i386__)
  asm volatile("cldemote (%0)" : : "r"(line));
#else
  static_cast<void>(line);
#endif
}

// For loops that look at a line which another processor writes.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace libcomm
