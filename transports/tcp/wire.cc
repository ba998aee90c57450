#include "transports/tcp/wire.h"

namespace libcomm {

Status check_header(const SegmentHeader& header, uint64_t sequence, size_t segment_bytes,
                    const TcpEnds& ends) {
  const auto bad = [&ends](std::string text) {
    return Status(Code::kRemote, std::move(text)).at_rank(ends.rank).with_peer(ends.peer);
  };
  if (header.magic != kSegmentMagic) {
    return bad(
        fmt::format("rank {} sent bytes that are no segment header (first word {:#010x}): the "
                    "stream is corrupt",
                    ends.peer, header.magic));
  }
  if (header.version != kSegmentVersion) {
    return bad(fmt::format(
        "rank {} sends segments of version {}, this rank reads version {}: use the same libcomm "
        "on all ranks",
        ends.peer, header.version, kSegmentVersion));
  }
  if ((header.flags & ~kSegmentMoves) != 0) {
    return bad(fmt::format("rank {} sent a segment with unknown flags {:#x}: the stream is corrupt",
                           ends.peer, header.flags));
  }
  if (header.bytes > segment_bytes) {
    return bad(
        fmt::format("rank {} announced a segment of {} bytes where at most {} are agreed: the "
                    "stream is corrupt",
                    ends.peer, header.bytes, segment_bytes));
  }
  if (header.sequence != static_cast<uint32_t>(sequence)) {
    return bad(fmt::format("rank {} sent segment {} where segment {} is due: the stream is corrupt",
                           ends.peer, header.sequence, static_cast<uint32_t>(sequence)));
  }
  return Status::ok();
}

}  // namespace libcomm
