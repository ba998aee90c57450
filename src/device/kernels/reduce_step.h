// What one thread of a reduction does.
//
// A thread reads its packs of all sources before it writes them, and no other thread writes these:
// in place is safe. Each element is combined alone, from the first source to the last, so its bits
// do not depend on where it is or on the launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/device/kernels/arguments.h"
#include "src/device/kernels/formats.h"
#include "src/device/kernels/packs.h"
#include "src/device/kernels/platform.h"

namespace libcomm::cuda {

// One reduction of elements of format F. The operator is chosen for each pack anew, by a branch
// that all threads take alike: a loop of its own for each operator makes the code many times
// larger.
template <class F>
class Reduction {
 public:
  using Bits = typename F::Bits;
  using Wide = typename F::Wide;

  explicit COMM_DEVICE_CODE Reduction(const ReduceArguments& arguments)
      : args_(arguments), divider_(arguments.divisor) {}

  // The part of thread `place`.
  COMM_DEVICE_CODE void run(const Place& place) const {
    const size_t bytes = args_.count * sizeof(Bits);
    const Split parts = split(number(args_.destinations[0]), bytes, ragged());
    const size_t tile = size_t{place.threads} * kCount;
    for (size_t at = place.block * tile; at < parts.packs; at += place.blocks * tile)
      run_packs(parts, at + place.thread, place.threads);
    if (place.block == 0) run_elements(0, parts.head, place);
    if (place.block == place.blocks - 1) run_elements(parts.tail_begin, bytes, place);
  }

 private:
  static constexpr int kLanes = kPackBytes / sizeof(Bits);
  // Packs at once. Registers: so many, widened, and those of two sources as they are.
  static constexpr int kCount = sizeof(Bits) == 1 ? kPacksAtOnce / 2 : kPacksAtOnce;

  COMM_DEVICE_CODE bool ragged() const {
    if constexpr (sizeof(Bits) < sizeof(uint32_t)) {
      const uintptr_t first = number(args_.destinations[0]);
      for (int s = 0; s < args_.source_count; ++s)
        if ((number(args_.sources[s]) - first) % sizeof(uint32_t) != 0) return true;
    }
    return false;
  }

  // kCount packs, `stride` apart. Instead of those beyond the last one, the first is read again: it
  // is this thread's own, so that nobody else writes it meanwhile.
  COMM_DEVICE_CODE void run_packs(const Split& parts, size_t first, size_t stride) const {
    if (first >= parts.packs) return;
    size_t offset[kCount];
    COMM_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const size_t pack = first + k * stride;
      offset[k] = parts.head + (pack < parts.packs ? pack : first) * kPackBytes;
    }
    Packs<kCount> packs;
    load_packs<Bits>(number(args_.sources[0]), offset, &packs);
    if (!copies()) combine_packs(offset, &packs);
    for (int d = 0; d < args_.destination_count; ++d) {
      COMM_UNROLL
      for (int k = 0; k < kCount; ++k)
        if (first + k * stride < parts.packs)
          store_pack<Bits>(number(args_.destinations[d]) + offset[k], packs.pack[k]);
    }
  }

  // From those of the first source to the result.
  COMM_DEVICE_CODE void combine_packs(const size_t (&offset)[kCount], Packs<kCount>* packs) const {
    Wide sum[kCount][kLanes] = {};
    for (int s = 0; s < args_.source_count; ++s) {
      Packs<kCount> next = *packs;  // on its way while this source is combined
      if (s + 1 < args_.source_count) load_packs<Bits>(number(args_.sources[s + 1]), offset, &next);
      COMM_UNROLL
      for (int k = 0; k < kCount; ++k) combine_pack(packs->pack[k], s, sum[k]);
      *packs = next;
    }
    *packs = {};
    COMM_UNROLL
    for (int k = 0; k < kCount; ++k) {
      COMM_UNROLL
      for (int i = 0; i < kLanes; ++i)
        put_element<Bits>(&packs->pack[k], i, F::encode(divider_.apply(sum[k][i])));
    }
  }

  COMM_DEVICE_CODE void combine_pack(const Pack& pack, int source, Wide (&sum)[kLanes]) const {
    Wide next[kLanes];
    COMM_UNROLL
    for (int i = 0; i < kLanes; ++i) next[i] = F::decode(element_of<Bits>(pack, i));
    if (scales(source)) {
      const Wide scalar = scalar_of(source);
      COMM_UNROLL
      for (int i = 0; i < kLanes; ++i) next[i] = scale<F>(next[i], scalar);
    }
    if (source == 0) {
      COMM_UNROLL
      for (int i = 0; i < kLanes; ++i) sum[i] = next[i];
    } else {
      combine_all<F>(args_.op, sum, next);
    }
  }

  // Elements of bytes [begin, end), by the threads of one block.
  COMM_DEVICE_CODE void run_elements(size_t begin, size_t end, const Place& place) const {
    for (size_t at = begin + place.thread * sizeof(Bits); at < end;
         at += place.threads * sizeof(Bits)) {
      Bits bits = load<Bits>(number(args_.sources[0]) + at);
      if (!copies()) bits = combine_elements(bits, at);
      for (int d = 0; d < args_.destination_count; ++d)
        store<Bits>(number(args_.destinations[d]) + at, bits);
    }
  }

  COMM_DEVICE_CODE Bits combine_elements(Bits first, size_t at) const {
    Wide sum[1] = {F::decode(first)};
    if (scales(0)) sum[0] = scale<F>(sum[0], scalar_of(0));
    for (int s = 1; s < args_.source_count; ++s) {
      Wide next[1] = {F::decode(load<Bits>(number(args_.sources[s]) + at))};
      if (scales(s)) next[0] = scale<F>(next[0], scalar_of(s));
      combine_all<F>(args_.op, sum, next);
    }
    return F::encode(divider_.apply(sum[0]));
  }

  // One source as it is: its bits, whatever these are.
  COMM_DEVICE_CODE bool copies() const {
    return args_.source_count == 1 && args_.divisor == 1 && !scales(0);
  }

  COMM_DEVICE_CODE bool scales(int source) const {
    return args_.scaled_source == kEverySource || args_.scaled_source == source;
  }
  COMM_DEVICE_CODE Wide scalar_of(int source) const {
    return F::decode(static_cast<Bits>(args_.scalars[source]));
  }

  const ReduceArguments& args_;
  Divider<F> divider_;
};

}  // namespace libcomm::cuda
