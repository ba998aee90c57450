// All that differs between the kernels on a GPU and the same step code on the host.
//
// Accesses are aligned to their size, as a GPU demands: the host version ends the program on one
// that is not, so that tests without a GPU find it. Plain loads, never those through the read-only
// cache: a destination may equal a source.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define COMM_DEVICE_CODE __device__ __forceinline__
#define COMM_UNROLL _Pragma("unroll")
#else
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#define COMM_DEVICE_CODE inline
#define COMM_UNROLL
#endif

namespace libcomm::cuda {

// 16 bytes: what one access moves at most.
struct Pack {
  uint32_t word[4];
};

#if defined(__CUDACC__)

COMM_DEVICE_CODE float float_of(uint32_t bits) { return __uint_as_float(bits); }
COMM_DEVICE_CODE uint32_t bits_of(float value) { return __float_as_uint(value); }
COMM_DEVICE_CODE double double_of(uint64_t bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}
COMM_DEVICE_CODE uint64_t bits_of(double value) {
  return static_cast<uint64_t>(__double_as_longlong(value));
}

template <typename T>
COMM_DEVICE_CODE T load(uintptr_t from) {
  return *reinterpret_cast<const T*>(from);
}
template <typename T>
COMM_DEVICE_CODE void store(uintptr_t to, T value) {
  *reinterpret_cast<T*>(to) = value;
}
template <>
COMM_DEVICE_CODE Pack load<Pack>(uintptr_t from) {
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  return {{v.x, v.y, v.z, v.w}};
}
template <>
COMM_DEVICE_CODE void store<Pack>(uintptr_t to, Pack pack) {
  *reinterpret_cast<uint4*>(to) =
      make_uint4(pack.word[0], pack.word[1], pack.word[2], pack.word[3]);
}

// The low half of (high:low) >> shift, shift below 32.
COMM_DEVICE_CODE uint32_t funnel(uint32_t low, uint32_t high, uint32_t shift) {
  return __funnelshift_r(low, high, shift);
}

// fp16 to fp32, exactly; a NaN stays a NaN.
COMM_DEVICE_CODE float float_of_half(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
// fp32, not a NaN, to fp16: to nearest even, subnormals included.
COMM_DEVICE_CODE uint16_t half_of(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

#else

inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline double double_of(uint64_t bits) { return std::bit_cast<double>(bits); }
inline uint64_t bits_of(double value) { return std::bit_cast<uint64_t>(value); }

inline void demand_alignment(uintptr_t address, size_t size) {
  if (address % size == 0) return;
  std::fprintf(stderr, "a kernel accesses %zu bytes at %#zx: a GPU would fault\n", size,
               static_cast<size_t>(address));
  std::abort();
}
template <typename T>
T load(uintptr_t from) {
  demand_alignment(from, sizeof(T));
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(from), sizeof value);
  return value;
}
template <typename T>
void store(uintptr_t to, T value) {
  demand_alignment(to, sizeof(T));
  std::memcpy(reinterpret_cast<void*>(to), &value, sizeof value);
}

inline uint32_t funnel(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> shift);
}

float float_of_half(uint16_t bits);
uint16_t half_of(float value);

#endif

// Which thread of which block this is.
struct Place {
  unsigned block;
  unsigned blocks;
  unsigned thread;
  unsigned threads;
};

}  // namespace libcomm::cuda
