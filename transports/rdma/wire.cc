#include "transports/rdma/wire.h"

namespace libcomm::rdma {
namespace {

Status corrupt(int peer, std::string what) {
  return error(Code::kRemote, "rank {} wrote {}: its memory or the fabric is corrupt", peer, what)
      .with_peer(peer);
}

Status other_version(int peer, unsigned theirs) {
  return error(Code::kRemote,
               "rank {} speaks version {} of the RDMA protocol, this rank version {}: use the same "
               "libcomm on all ranks",
               peer, theirs, kWireVersion)
      .with_peer(peer);
}

constexpr uint32_t kMost24 = (1u << 24) - 1;  // of queue pair and packet numbers

Status check_qp(const QpWire& qp, int peer) {
  if (qp.number > kMost24 || qp.first_psn > kMost24)
    return corrupt(
        peer, fmt::format("a queue pair {:#x} with first packet {:#x}", qp.number, qp.first_psn));
  return Status::ok();
}

bool is_mtu(uint8_t code) { return code >= IBV_MTU_256 && code <= IBV_MTU_4096; }

}  // namespace

Status check_arrival(const ArrivalHeader& header, uint64_t sequence, size_t slot_bytes, int peer) {
  if (header.magic != kArrivalMagic)
    return corrupt(peer, fmt::format("no segment header (first word {:#010x})", header.magic));
  if (header.version != kWireVersion) return other_version(peer, header.version);
  if (header.sequence != static_cast<uint32_t>(sequence))
    return corrupt(peer, fmt::format("segment {} where segment {} is due", header.sequence,
                                     static_cast<uint32_t>(sequence)));
  if (header.kind < ArrivalKind::kSmall || header.kind > ArrivalKind::kRefusal)
    return corrupt(peer, fmt::format("a segment of unknown kind {}", int{uint8_t(header.kind)}));
  const size_t most = header.kind == ArrivalKind::kSmall ? kSmallBytes : slot_bytes;
  if (header.bytes > most)
    return corrupt(
        peer, fmt::format("a segment of {} bytes where at most {} are agreed", header.bytes, most));
  if (header.parts < 1 || header.parts > kMaxDataQps)
    return corrupt(peer, fmt::format("a segment of {} parts", int{header.parts}));
  return Status::ok();
}

Status check_grant(const GrantEntry& entry, uint64_t sequence, int rails, int peer) {
  if (entry.magic != kGrantMagic)
    return corrupt(peer, fmt::format("no grant (first word {:#010x})", entry.magic));
  if (entry.version != kWireVersion) return other_version(peer, entry.version);
  if (entry.sequence != static_cast<uint32_t>(sequence))
    return corrupt(peer, fmt::format("grant entry {} where {} is due", entry.sequence,
                                     static_cast<uint32_t>(sequence)));
  if ((entry.flags & kGrantsMemory) != 0 && entry.rails != rails)
    return corrupt(
        peer, fmt::format("a grant for {} rails where {} are agreed", int{entry.rails}, rails));
  return Status::ok();
}

Status check_end(const EndWire& theirs, const EndWire& mine, int peer) {
  const auto differs = [peer](const char* what, uint64_t a, uint64_t b) {
    return error(Code::kRemote,
                 "rank {} wants an RDMA channel with {} {}, this rank one with {}: use the same "
                 "libcomm on all ranks",
                 peer, what, a, b)
        .with_peer(peer);
  };
  if (theirs.rails != mine.rails) return differs("rails", theirs.rails, mine.rails);
  if (theirs.qps_per_rail != mine.qps_per_rail)
    return differs("queue pairs per rail", theirs.qps_per_rail, mine.qps_per_rail);
  if (theirs.segment_bytes != mine.segment_bytes)
    return differs("slots of bytes", theirs.segment_bytes, mine.segment_bytes);
  if (theirs.arrivals != mine.arrivals)
    return differs("arrival entries", theirs.arrivals, mine.arrivals);
  if (theirs.grants != mine.grants) return differs("grant entries", theirs.grants, mine.grants);
  if (theirs.entry_bytes != mine.entry_bytes)
    return differs("bytes per entry", theirs.entry_bytes, mine.entry_bytes);
  for (int rail = 0; rail < mine.rails; ++rail) {
    if (theirs.rail[rail].link_layer != mine.rail[rail].link_layer)
      return differs("link layer", theirs.rail[rail].link_layer, mine.rail[rail].link_layer);
    if (!is_mtu(theirs.rail[rail].mtu))
      return differs("MTU code", theirs.rail[rail].mtu, mine.rail[rail].mtu);
  }
  const int qps = mine.rails * mine.qps_per_rail + 1;
  for (int qp = 0; qp < qps && qp < kMaxQps; ++qp) COMM_TRY(check_qp(theirs.qp[qp], peer));
  return Status::ok();
}

Status check_rebuild(const RebuildWire& rebuild, bool ethernet, int peer) {
  COMM_TRY(check_qp(rebuild.qp, peer));
  const int layer = ethernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND;
  if (rebuild.qp.number == 0 || !is_mtu(rebuild.rail.mtu) || rebuild.rail.link_layer != layer)
    return corrupt(
        peer, fmt::format("a queue pair {} with MTU code {} and link layer {}", rebuild.qp.number,
                          int{rebuild.rail.mtu}, int{rebuild.rail.link_layer}));
  return Status::ok();
}

}  // namespace libcomm::rdma
