// Wire: what the two ends of a channel write into each other's memory, and what they tell each
// other over the control connection.
//
// All structs are little-endian, versioned, and read as if an enemy had written them.
//
//   arrivals  in the receiver's memory, a ring of kArrivals entries: a header for every segment
//   and,
//             of small ones, the bytes. Entry n mod kArrivals is the sender's from the moment when
//             the receiver has released segment n - kArrivals. A segment that fills a grant for one
//             call in one part has no header: the receiver knows all that it would say.
//   grants    in the sender's memory, a ring of kGrants entries: where the next large segment may
//             be written, and how many segments have been released.
//
// Every entry arrives by a write with immediate, which says which entry it is; entries may come out
// of order when several queue pairs carry them.
#pragma once

#include <infiniband/verbs.h>

#include <bit>
#include <cstddef>
#include <cstdint>

#include "src/base/status.h"
#include "transports/transport.h"

namespace libcomm::rdma {

static_assert(std::endian::native == std::endian::little, "wire structs are little-endian");

inline constexpr uint16_t kWireVersion = 3;
inline constexpr int kMaxRails = 4;
inline constexpr int kMaxDataQps = 64;           // of one channel: 16 on each of 4 rails
inline constexpr int kMaxQps = kMaxDataQps + 1;  // and one for grants
inline constexpr uint32_t kArrivals = 16;        // segments in flight on a channel
inline constexpr uint32_t kMaxSlots = 64;        // large grants outstanding
inline constexpr uint32_t kGrants = 128;         // unacknowledged entries
// The sender can get stuck only when it has used up what entries it knows of gave it; the entries
// that it has not acknowledged then are at most one per slot and one per segment in flight.
static_assert(kGrants > kMaxSlots + kArrivals);

enum class ArrivalKind : uint8_t {
  kSmall = 1,    // the bytes follow the header
  kLarge = 2,    // the bytes are where the grant said
  kRefusal = 3,  // the grant was for another segment than this one, which still waits for a grant
};

inline constexpr uint32_t kArrivalMagic = 0x56415243;  // "CRAV"
struct ArrivalHeader {
  uint32_t magic = kArrivalMagic;
  uint16_t version = kWireVersion;
  ArrivalKind kind = ArrivalKind::kSmall;
  uint8_t parts = 1;         // immediates that announce it, one from each queue pair that took part
  uint32_t sequence = 0;     // of the arrival on its channel, from 0, modulo 2^32
  uint32_t bytes = 0;        // of the segment
  uint32_t grant = 0;        // number of the grant that a large segment or a refusal used up
  uint32_t grants_seen = 0;  // entries of the grant ring that the sender has read so far
  Signature signature;
  // Modulo 2^32; see releases.h.
  uint32_t released = 0;        // arrivals of the other direction that this rank has released
  uint32_t released_known = 0;  // arrivals of this direction that it knows to be released
};
static_assert(sizeof(ArrivalHeader) == 64);
static_assert(offsetof(ArrivalHeader, grant) == 16 && offsetof(ArrivalHeader, signature) == 24);

inline constexpr size_t kEntryBytes = 4096;  // of the arrival ring
inline constexpr size_t kSmallBytes = kEntryBytes - sizeof(ArrivalHeader);

enum GrantFlags : uint8_t {
  kGrantsMemory = 1,  // the entry grants a place; otherwise it only releases
  kForOneCall = 2,    // the place is user memory: for a segment of this signature and size only
};

inline constexpr uint32_t kGrantMagic = 0x52475243;  // "CRGR"
struct GrantEntry {
  uint32_t magic = kGrantMagic;
  uint16_t version = kWireVersion;
  uint8_t flags = 0;
  uint8_t rails = 0;      // how many of the keys are given
  uint32_t sequence = 0;  // of the entry, from 0
  uint32_t grant = 0;     // number of the grant, from 0
  uint64_t address = 0;
  uint32_t bytes = 0;
  uint32_t released = 0;  // arrivals that the receiver has released so far
  uint32_t rkey[kMaxRails] = {};
  Signature signature;
};
static_assert(sizeof(GrantEntry) == 80);
static_assert(offsetof(GrantEntry, address) == 16 && offsetof(GrantEntry, signature) == 48);

// The 32 bits of an immediate: what arrived, as which part, in which entry (modulo 2^24).
struct Immediate {
  // kFilled: an arrival without a header.
  enum Kind : uint32_t { kArrival = 1, kGrant = 2, kFilled = 3 };
  Kind kind = kArrival;
  uint32_t part = 0;      // below kMaxDataQps
  uint32_t sequence = 0;  // modulo 2^24

  static constexpr uint32_t kSequenceMask = (1u << 24) - 1;
  uint32_t encode() const { return kind << 30 | part << 24 | (sequence & kSequenceMask); }
  static Immediate decode(uint32_t value) {
    return {static_cast<Kind>(value >> 30), value >> 24 & 63, value & kSequenceMask};
  }
  // How far `sequence` is from the 64-bit number `from`, in [-2^23, 2^23).
  int64_t distance(uint64_t from) const {
    const uint32_t ahead = (sequence - static_cast<uint32_t>(from)) & kSequenceMask;
    return ahead < 1u << 23 ? ahead : static_cast<int64_t>(ahead) - (1 << 24);
  }
};

// ---- the control connection --------------------------------------------------------------------

enum class MessageType : uint16_t {
  kOffer = 1,     // sender: how to reach it, and the memory of its grant ring
  kAnswer = 2,    // receiver: the same, for its arrival ring
  kReady = 3,     // sender: its queue pair `index` (kAllQps: all) can receive
  kBroken = 4,    // receiver: its queue pair `index` is broken
  kFence = 5,     // sender: its queue pair is fenced; what it has received
  kFenced = 6,    // receiver: the same
  kRebuild = 7,   // sender: a new queue pair in that place
  kRebuilt = 8,   // receiver: the same
  kRefused = 9,   // either: text, why there is no channel
  kGoodbye = 10,  // receiver: it leaves, and has received so many arrivals
};

inline constexpr uint32_t kMessageMagic = 0x4d435243;  // "CRCM"
inline constexpr uint32_t kAllQps = UINT32_MAX;

struct MessageHeader {
  uint32_t magic = kMessageMagic;
  uint16_t version = kWireVersion;
  uint16_t type = 0;
  uint32_t bytes = 0;  // that follow, at most kMaxMessage
  uint32_t reserved = 0;
};
static_assert(sizeof(MessageHeader) == 16);

struct RailWire {
  ibv_gid gid{};
  uint16_t lid = 0;
  uint8_t link_layer = 0;  // IBV_LINK_LAYER_*
  uint8_t mtu = 0;         // ibv_mtu, active
  uint32_t ece_vendor = 0;
  uint32_t ece_options = 0;
  uint32_t ece_mask = 0;  // 0: not offered; else with its highest bit set
};
static_assert(sizeof(RailWire) == 32);

struct QpWire {
  uint32_t number = 0;  // 0: it failed before the channel was open, and is going to be replaced
  uint32_t first_psn = 0;
};

// Where a ring is, on each rail.
struct MemoryWire {
  uint64_t address = 0;
  uint32_t rkey[kMaxRails] = {};
};
static_assert(sizeof(MemoryWire) == 24);

struct EndWire {  // kOffer, kAnswer
  uint16_t rails = 0;
  uint16_t qps_per_rail = 0;
  uint32_t arrivals = kArrivals;
  uint32_t grants = kGrants;
  uint32_t entry_bytes = kEntryBytes;
  uint64_t segment_bytes = 0;
  MemoryWire ring;
  RailWire rail[kMaxRails];
  QpWire qp[kMaxQps];  // data queue pairs, rail by rail, then the one for grants
};
static_assert(sizeof(EndWire) == 24 + 24 + 32 * kMaxRails + 8 * kMaxQps);

struct QpNews {  // kReady, kBroken
  uint32_t index = 0;
  uint32_t epoch = 0;
};

// kFence: grant entries that arrived; kFenced: arrivals, by part.
struct FenceWire {
  uint32_t index = 0;
  uint32_t epoch = 0;
  uint64_t next = 0;               // all before it arrived whole
  uint64_t arrived[kGrants] = {};  // bits of the parts of next, next + 1, ... that arrived
};
static_assert(sizeof(FenceWire) == 16 + 8 * kGrants);

struct GoodbyeWire {
  uint64_t received = 0;
};

struct RebuildWire {  // kRebuild, kRebuilt
  uint32_t index = 0;
  uint32_t epoch = 0;  // of the new queue pair
  QpWire qp;
  RailWire rail;
};

inline constexpr size_t kMaxMessage = sizeof(FenceWire);
static_assert(kMaxMessage >= sizeof(EndWire));

// kRemote naming the peer and what is not as it must be. `slot_bytes`: largest segment.
Status check_arrival(const ArrivalHeader& header, uint64_t sequence, size_t slot_bytes, int peer);
Status check_grant(const GrantEntry& entry, uint64_t sequence, int rails, int peer);
Status check_end(const EndWire& theirs, const EndWire& mine, int peer);
// A queue pair in place of a failed one, on a rail of this link layer.
Status check_rebuild(const RebuildWire& rebuild, bool ethernet, int peer);

}  // namespace libcomm::rdma
