// Accesses to memory that other GPUs, other processes and the host use at the same time, and what
// the threads of a block do together: on a GPU, and the same on the host.
#pragma once

#include <cstdint>

#include "src/device/kernels/platform.h"

#if !defined(__CUDACC__)
#include <barrier>
#include <chrono>
#include <thread>
#endif

namespace libcomm::cuda {

// 16 bytes of which each half is written and read as one.
struct Line {
  uint64_t half[2];
};

#if defined(__CUDACC__)

COMM_DEVICE_CODE uint64_t load_acquire(uintptr_t from) {
  uint64_t value;
  asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
// After a barrier of the block: everything that its threads have done before is seen by who sees
// this.
COMM_DEVICE_CODE void store_release(uintptr_t to, uint64_t value) {
  asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}
COMM_DEVICE_CODE uint32_t load_word(uintptr_t from) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
COMM_DEVICE_CODE void store_word(uintptr_t to, uint32_t value) {
  asm volatile("st.release.sys.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
COMM_DEVICE_CODE Line load_line(uintptr_t from) {
  Line line;
  asm volatile("ld.relaxed.sys.v2.u64 {%0, %1}, [%2];"
               : "=l"(line.half[0]), "=l"(line.half[1])
               : "l"(from)
               : "memory");
  return line;
}
COMM_DEVICE_CODE void store_line(uintptr_t to, const Line& line) {
  asm volatile("st.relaxed.sys.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(line.half[0]),
               "l"(line.half[1])
               : "memory");
}
// The value before; among the blocks of this GPU.
COMM_DEVICE_CODE uint32_t add_one(uintptr_t to) {
  __threadfence();
  const uint32_t before = atomicAdd(reinterpret_cast<unsigned*>(to), 1u);
  __threadfence();
  return before;
}

// The threads of a block.
class Team {
 public:
  COMM_DEVICE_CODE void wait() const { __syncthreads(); }
};
// In shared memory.
COMM_DEVICE_CODE void raise_flag(uint32_t* flag) {
  *reinterpret_cast<volatile uint32_t*>(flag) = 1;
}

// Between two looks at memory.
COMM_DEVICE_CODE void pause_after(unsigned looks) {
  if (looks > 10000) __nanosleep(200);
}
inline constexpr unsigned kLooksBetweenAborts = 1000;

#else

template <typename T>
T* word_at(uintptr_t at) {
  demand_alignment(at, sizeof(T));
  return reinterpret_cast<T*>(at);
}
inline uint64_t load_acquire(uintptr_t from) {
  return __atomic_load_n(word_at<uint64_t>(from), __ATOMIC_ACQUIRE);
}
inline void store_release(uintptr_t to, uint64_t value) {
  __atomic_store_n(word_at<uint64_t>(to), value, __ATOMIC_RELEASE);
}
inline uint32_t load_word(uintptr_t from) {
  return __atomic_load_n(word_at<uint32_t>(from), __ATOMIC_RELAXED);
}
inline void store_word(uintptr_t to, uint32_t value) {
  __atomic_store_n(word_at<uint32_t>(to), value, __ATOMIC_RELEASE);
}
inline Line load_line(uintptr_t from) {
  demand_alignment(from, sizeof(Line));
  return {{__atomic_load_n(word_at<uint64_t>(from), __ATOMIC_RELAXED),
           __atomic_load_n(word_at<uint64_t>(from + 8), __ATOMIC_RELAXED)}};
}
inline void store_line(uintptr_t to, const Line& line) {
  demand_alignment(to, sizeof(Line));
  __atomic_store_n(word_at<uint64_t>(to), line.half[0], __ATOMIC_RELAXED);
  __atomic_store_n(word_at<uint64_t>(to + 8), line.half[1], __ATOMIC_RELAXED);
}
inline uint32_t add_one(uintptr_t to) {
  return __atomic_fetch_add(word_at<uint32_t>(to), 1u, __ATOMIC_ACQ_REL);
}

class Team {
 public:
  explicit Team(unsigned threads) : barrier_(threads) {}
  void wait() { barrier_.arrive_and_wait(); }

 private:
  std::barrier<> barrier_;
};
inline void raise_flag(uint32_t* flag) { __atomic_store_n(flag, 1u, __ATOMIC_RELAXED); }

// Others may need the processor.
inline void pause_after(unsigned looks) {
  if (looks > 500)
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  else
    std::this_thread::yield();
}
inline constexpr unsigned kLooksBetweenAborts = 50;

#endif

}  // namespace libcomm::cuda
