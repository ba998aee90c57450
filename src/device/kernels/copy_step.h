// What one thread of a copy of segments does.
//
// Every segment is cut into tiles of what a block moves at once; the tiles of all segments are
// dealt to the blocks in turn.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/device/kernels/arguments.h"
#include "src/device/kernels/packs.h"
#include "src/device/kernels/platform.h"

namespace libcomm::cuda {

// Tile `tile` of `tiles` of a segment; the first one brings the head with it, the last one the
// tail.
COMM_DEVICE_CODE void copy_tile(const CopySegment& segment, const Split& parts, size_t tile,
                                size_t tiles, const Place& place) {
  const uintptr_t from = number(segment.from);
  const uintptr_t to = number(segment.to);
  const size_t first = tile * place.threads * kPacksAtOnce + place.thread;
  if (first < parts.packs) {
    size_t offset[kPacksAtOnce];
    COMM_UNROLL
    for (int k = 0; k < kPacksAtOnce; ++k) {
      const size_t pack = first + size_t{place.threads} * k;
      offset[k] = parts.head + (pack < parts.packs ? pack : parts.packs - 1) * kPackBytes;
    }
    Packs<kPacksAtOnce> packs;
    load_packs<uint8_t>(from, offset, &packs);
    COMM_UNROLL
    for (int k = 0; k < kPacksAtOnce; ++k)
      if (first + size_t{place.threads} * k < parts.packs)
        store<Pack>(to + offset[k], packs.pack[k]);
  }
  if (tile == 0)
    for (size_t at = place.thread; at < parts.head; at += place.threads)
      store<uint8_t>(to + at, load<uint8_t>(from + at));
  if (tile == tiles - 1)
    for (size_t at = parts.tail_begin + place.thread; at < segment.bytes; at += place.threads)
      store<uint8_t>(to + at, load<uint8_t>(from + at));
}

// The part of thread `place`.
COMM_DEVICE_CODE void copy_step(const CopyArguments& arguments, const Place& place) {
  const size_t tile_packs = size_t{place.threads} * kPacksAtOnce;
  size_t before = 0;  // tiles of the segments before this one
  size_t mine = place.block;
  for (int s = 0; s < arguments.segment_count; ++s) {
    const CopySegment& segment = arguments.segments[s];
    const Split parts = split(number(segment.to), segment.bytes, true);
    const size_t tiles = parts.packs <= tile_packs ? 1 : (parts.packs - 1) / tile_packs + 1;
    for (; mine < before + tiles; mine += place.blocks)
      copy_tile(segment, parts, mine - before, tiles, place);
    before += tiles;
  }
}

}  // namespace libcomm::cuda
