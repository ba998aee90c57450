// Wire: the header in front of every segment on a TCP connection.
//
// A connection carries segments one after the other: this header, then `bytes` bytes. Everything is
// little-endian. The connection has proved the job's secret before its first byte is read, yet the
// header is read as if an enemy had written it: see check_header.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "src/base/status.h"
#include "transports/transport.h"

namespace libcomm {

inline constexpr uint32_t kSegmentMagic = 0x47455343;  // "CSEG"
inline constexpr uint16_t kSegmentVersion = 2;
// The segments after this one come on the pair's other connection: see duplex.h.
inline constexpr uint16_t kSegmentMoves = 1;

struct SegmentHeader {
  uint32_t magic = kSegmentMagic;
  uint16_t version = kSegmentVersion;
  uint16_t flags = 0;     // kSegmentMoves or 0
  uint32_t bytes = 0;     // of the payload that follows, at most the channel's segment_bytes
  uint32_t sequence = 0;  // of the segment on its channel, from 0, modulo 2^32
  Signature signature;
};
static_assert(sizeof(SegmentHeader) == 48);
static_assert(offsetof(SegmentHeader, bytes) == 8 && offsetof(SegmentHeader, signature) == 16);
static_assert(std::endian::native == std::endian::little, "wire structs are little-endian");

// The two ends of a connection, for messages.
struct TcpEnds {
  int rank = -1;  // this one
  int peer = -1;
};

// kRemote naming the peer and the field that is not as it must be.
Status check_header(const SegmentHeader& header, uint64_t sequence, size_t segment_bytes,
                    const TcpEnds& ends);

}  // namespace libcomm
