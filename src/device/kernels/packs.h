// Moving packs of 16 bytes between memory of any alignment and registers.
//
// An array of a launch is cut into a head, a body and a tail: the body is packs that are aligned in
// the first destination, head and tail go element by element. Where other arrays are aligned
// otherwise, a pack of theirs is read as words and shifted into place, and written as smaller
// pieces.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/device/kernels/platform.h"

namespace libcomm::cuda {

inline constexpr size_t kPackBytes = sizeof(Pack);
// A thread of a large launch works on this many packs at once.
inline constexpr int kPacksAtOnce = 4;

// In bytes, from the beginning of each array; `packs` of them follow the head.
struct Split {
  size_t head;
  size_t packs;
  size_t tail_begin;
};

// Ragged: some array is misaligned to the first destination by less than a word. A pack of such an
// array is read as whole words, up to 3 bytes beyond it, so the body stays that far from both ends.
COMM_DEVICE_CODE Split split(uintptr_t first_destination, size_t bytes, bool ragged) {
  const size_t slack = ragged ? sizeof(uint32_t) - 1 : 0;
  size_t head = (kPackBytes - first_destination % kPackBytes) % kPackBytes;
  if (head < slack) head += kPackBytes;
  if (bytes < head + kPackBytes + slack) return {bytes, 0, bytes};
  const size_t packs = (bytes - head - slack) / kPackBytes;
  return {head, packs, head + packs * kPackBytes};
}

template <int kCount>
struct Packs {
  Pack pack[kCount];
};

// Packs at `from + offset[k]`, in an array of elements of type Bits.
template <typename Bits, int kCount>
COMM_DEVICE_CODE void load_packs(uintptr_t from, const size_t (&offset)[kCount],
                                 Packs<kCount>* into) {
  const uintptr_t misaligned = (from + offset[0]) % kPackBytes;
  if (misaligned == 0) {
    COMM_UNROLL
    for (int k = 0; k < kCount; ++k) into->pack[k] = load<Pack>(from + offset[k]);
  } else if (sizeof(Bits) >= sizeof(uint32_t) || misaligned % sizeof(uint32_t) == 0) {
    COMM_UNROLL
    for (int k = 0; k < kCount; ++k) {
      COMM_UNROLL
      for (int w = 0; w < 4; ++w)
        into->pack[k].word[w] = load<uint32_t>(from + offset[k] + w * sizeof(uint32_t));
    }
  } else {
    const uint32_t within = static_cast<uint32_t>(misaligned % sizeof(uint32_t));
    COMM_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const uintptr_t words = from + offset[k] - within;
      uint32_t low = load<uint32_t>(words);
      COMM_UNROLL
      for (int w = 0; w < 4; ++w) {
        const uint32_t high = load<uint32_t>(words + (w + 1) * sizeof(uint32_t));
        into->pack[k].word[w] = funnel(low, high, 8 * within);
        low = high;
      }
    }
  }
}

// Element `i` of the elements of type Bits in a pack; `i` is known when compiling.
template <typename Bits>
COMM_DEVICE_CODE Bits element_of(const Pack& pack, int i) {
  if constexpr (sizeof(Bits) == 8) {
    return uint64_t{pack.word[2 * i + 1]} << 32 | pack.word[2 * i];
  } else {
    constexpr int kPerWord = sizeof(uint32_t) / sizeof(Bits);
    return static_cast<Bits>(pack.word[i / kPerWord] >> (8 * sizeof(Bits) * (i % kPerWord)));
  }
}

// Puts element `i` into a pack that is zero there.
template <typename Bits>
COMM_DEVICE_CODE void put_element(Pack* pack, int i, Bits bits) {
  if constexpr (sizeof(Bits) == 8) {
    pack->word[2 * i] = static_cast<uint32_t>(bits);
    pack->word[2 * i + 1] = static_cast<uint32_t>(bits >> 32);
  } else {
    constexpr int kPerWord = sizeof(uint32_t) / sizeof(Bits);
    pack->word[i / kPerWord] |= uint32_t{bits} << (8 * sizeof(Bits) * (i % kPerWord));
  }
}

// `to` is aligned to elements of type Bits.
template <typename Bits>
COMM_DEVICE_CODE void store_pack(uintptr_t to, const Pack& pack) {
  if (to % kPackBytes == 0) {
    store<Pack>(to, pack);
  } else if (sizeof(Bits) >= sizeof(uint32_t) || to % sizeof(uint32_t) == 0) {
    COMM_UNROLL
    for (int w = 0; w < 4; ++w) store<uint32_t>(to + w * sizeof(uint32_t), pack.word[w]);
  } else {
    COMM_UNROLL
    for (int i = 0; i < static_cast<int>(kPackBytes / sizeof(Bits)); ++i)
      store<Bits>(to + i * sizeof(Bits), element_of<Bits>(pack, i));
  }
}

COMM_DEVICE_CODE uintptr_t number(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

}  // namespace libcomm::cuda
