// Transport: how bytes get from one rank to another. shm, tcp, rdma, cuda and fake are siblings
// behind this file; the executor sees nothing else of them.
//
// A channel is one direction between two ranks on one lane. It carries *segments*: a message is cut
// into segments of at most Plan::segment_bytes by both ends alike. Credits live inside the channel;
// the layers above only see "not ready yet". No call here blocks, except where it says so. A
// channel is used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

// What an operation is, so that mismatched calls are found: travels with every segment.
// Wire struct: little-endian, no padding.
struct Signature {
  uint64_t op = 0;     // number of the operation on its communicator, from 1; p2p: per pair
  uint64_t count = 0;  // as the caller gave it, elements
  // Of the v-variants' tables where all ranks must agree, and of the counts of merged calls.
  uint64_t table_hash = 0;
  int32_t root = -1;
  uint8_t collective = 0;  // Collective
  uint8_t type = 0;        // DataType
  uint8_t redop = 0;       // ReduceOp, 0x80 set for average, 0x40 for pre-multiplied sum
  uint8_t merged = 0;      // calls of a group that this one stands for, at most 255; 0: it is one

  bool operator==(const Signature&) const = default;
};
static_assert(sizeof(Signature) == 32);

// The table hash of the exchange in which ranks tell each other where the GPU memory of a call is,
// or a sender its receiver, so that it is told from other calls.
inline constexpr uint64_t kGpuMeeting = 0x4750554d45455431;

// Mixed into the table hash of a call that kernels do with each other, so that it is told from the
// same call on host memory.
inline constexpr uint64_t kGpuKernels = 0x47505543414c4c53;

// What a channel can do, as bits.
enum ChannelCapability : unsigned {
  kMapped = 1u << 0,      // slots are memory shared with the peer: filling one is delivery
  kDirectSend = 1u << 1,  // post() sends straight from user memory without a copy of ours
  kDirectRecv = 1u << 2,  // receive_into() receives straight into user memory
  kDeviceMemory = 1u << 3,
  kOrdered = 1u << 4,  // segments arrive in the order they were sent (always true today)
  // post() lets the peer take large segments straight from user memory: complete once it has.
  kReferences = 1u << 5,
};

// What a waiter that has spun long enough may sleep on.
struct WaitHandle {
  int fd = -1;  // readable (or writable, for a sender) when there may be progress; -1: none
  bool for_write = false;
};

class SendChannel {
 public:
  virtual ~SendChannel() = default;
  virtual unsigned capabilities() const = 0;
  // Largest segment.
  virtual size_t segment_bytes() const = 0;

  // A place to write the next segment into; *slot == nullptr when there is no credit yet. Asking
  // again gives the same place. Makes progress, as post() does, so that asking is enough to get
  // credit.
  virtual Status reserve(std::byte** slot) = 0;
  // Sends the reserved slot's first `bytes` (0 is allowed: a signal).
  virtual Status commit(const Signature& signature, size_t bytes) = 0;

  // kDirectSend, kReferences: sends [src, src + bytes); *accepted == false when there is no room
  // yet. The source must not change until completed() has reached the number of segments accepted
  // so far.
  virtual Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted);
  // Largest segment that post() takes, which may be more than a slot holds where nothing is copied.
  // The receiving end's receive_bytes() is the same.
  virtual size_t post_bytes() const { return segment_bytes(); }
  // Makes progress; *completed is how many of the first segments (committed and posted, in order)
  // have left this process, so that their memory may be used again. Where slots are mapped, a
  // commit is complete at once; a socket channel may still hold committed bytes, so an operation is
  // over for its sender only when *completed has reached the number of segments accepted.
  virtual Status progress(uint64_t* completed) = 0;
  virtual WaitHandle wait_handle() const { return {}; }
  // The operation has failed: when this returns, the peer looks at posted memory no more.
  virtual void withdraw() {}
};

struct Segment {
  const std::byte* data = nullptr;  // nullptr: nothing has arrived yet
  size_t bytes = 0;
  Signature signature;
  bool ready = false;  // true also for an empty segment
};

class RecvChannel {
 public:
  virtual ~RecvChannel() = default;
  virtual unsigned capabilities() const = 0;
  virtual size_t segment_bytes() const = 0;

  // The oldest segment that has arrived whole, without taking it; makes progress.
  virtual Status peek(Segment* segment) = 0;
  // Takes the segment that peek showed: its memory may be reused by the peer.
  virtual Status release() = 0;

  // Receives the next segment into [dst, dst + bytes), for kDirectRecv without a copy. Call it
  // again with the same arguments until *done. `expected` is what its signature should be: when it,
  // or the length, differs, nothing is written, *done stays false, and the status is kInvalidUsage
  // from mismatch(). The default does it by peek, memcpy and release.
  virtual Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done);
  // Largest segment of a sender that only posts.
  virtual size_t receive_bytes() const { return segment_bytes(); }
  // A hint: the next segments, of `segment` bytes each but for the last, are going to be received
  // by receive_into() into [dst, dst + bytes), one after the other. A channel that must tell its
  // peer where to write can do so for all of them at once.
  virtual void expect(const Signature& /*expected*/, void* /*dst*/, size_t /*bytes*/,
                      size_t /*segment*/) {}
  // The operation has failed: from when this returns, nothing is written into memory given to
  // expect() or receive_into() any more. The channel may be of no use then.
  virtual void withdraw() {}
  virtual WaitHandle wait_handle() const { return {}; }

  // This rank and the sender, for messages; -1 where a channel does not say.
  virtual int rank() const { return -1; }
  virtual int peer() const { return -1; }
};

// "rank 0 called allreduce(count 100, float32, sum) as operation 7, but rank 1 called
// allreduce(count 200, float32, sum); all ranks must make the same calls in the same order" as
// kInvalidUsage, attributed to the peer. Lengths are named when the signatures are equal.
Status mismatch(int my_rank, const Signature& mine, size_t my_bytes, int peer_rank,
                const Signature& theirs, size_t their_bytes);
// "allreduce(count 100, float32, sum)": the call without its number. Values that no rank of this
// version sends are shown as numbers.
std::string describe(const Signature& signature);

// What every rank tells all others about itself when a communicator is made. Wire struct.
struct PeerFacts {
  int32_t rank = -1;
  uint32_t version = 1;
  uint64_t host_hash = 0;  // of boot id and COMM_HOSTID: equal means "perhaps the same host"
  uint64_t process_token[2] = {};  // random per process: equal means the same address space
  int64_t pid = 0;
  uint64_t pid_namespace = 0;  // inode of /proc/self/ns/pid
  uint64_t net_namespace = 0;
  uint32_t uid = 0;
  uint32_t flags = 0;
  int32_t core = -1;  // core this rank is bound to, or -1
  int32_t numa_node = -1;
};
static_assert(sizeof(PeerFacts) == 72);

// Memory that all ranks of one communicator on one host have mapped: the ground for fused
// exchanges. Each rank owns one equal part, all zero at first. Who writes what where is up to the
// fused exchange.
class Board {
 public:
  virtual ~Board() = default;
  // Ranks on the board, ascending; index() is this rank's position.
  virtual std::span<const int> ranks() const = 0;
  virtual int index() const = 0;
  // Rank `index`'s part, in this process's address space; page-aligned.
  virtual std::byte* part(int index) const = 0;
  virtual std::span<std::byte* const> parts() const = 0;  // by index
  virtual size_t part_bytes() const = 0;

  // What operation this rank is in, for finding mismatched calls; published before the exchange.
  // published() is empty while rank `index` has published nothing yet, and while it is publishing.
  virtual void publish(const Signature& signature) = 0;
  virtual std::optional<Signature> published(int index) const = 0;
  // The same for an operation from which this rank may go on before the others have begun it: they
  // find it among the last few of these, too.
  virtual void publish_for_later(const Signature& signature) = 0;
  // What rank `index` has published as its operation `op`, if that is still to be seen.
  virtual std::optional<Signature> published_as(int index, uint64_t op) const = 0;

  // Wakes the other ranks that sleep; to be called after writing what they wait for. Costs one load
  // for each that does not. `fence`: order the preceding store before those loads (needed where
  // ranks share cores; a wake-up lost without it costs the sleeper its time limit).
  virtual void wake_others(bool fence) = 0;
  // Tells the others on which core this thread runs, and returns it.
  virtual int note_core() = 0;
  // Where rank `index` noted that it runs; -1 when it never had to wait long enough to say.
  virtual int core_of(int index) const = 0;
  // Sleeps until woken or `microseconds` have passed. prepare_sleep() first, then look once more at
  // what is awaited, then sleep(ticket).
  virtual uint32_t prepare_sleep() = 0;
  virtual void sleep(uint32_t ticket, int microseconds) = 0;
  virtual void cancel_sleep() = 0;

  // Whether every member can map every other's commMemAlloc segments, as a trial between the actual
  // processes showed. The same on all members.
  virtual bool segments_mappable() const { return false; }
  // Lets the peers map a commMemAlloc segment of this rank; to be called before telling them its
  // number, in every operation that uses it (again is cheap). There is room for so many: with
  // `replace` one that was shared before may go, which is good when whoever was told of it has
  // mapped it. kInvalidUsage when the segment is gone, kSystem when there is no room.
  virtual Status share_segment(uint64_t /*segment*/, bool /*replace*/) {
    return error(Code::kSystem, "this board does not map segments");
  }
  // Gives up the peers' segments that have been freed, and tells them of this rank's; cheap.
  virtual void drop_freed_segments() {}
  // commMemAlloc memory of a peer: where [offset, offset + bytes) of its segment is mapped here.
  // Maps on first use, once the peer has shared it. kSystem when it cannot be mapped.
  virtual Result<std::byte*> map_segment(int index, uint64_t segment, uint64_t offset,
                                         size_t bytes) = 0;

  // Whether rank `index` is a thread of this process: its pointers are good here.
  virtual bool in_this_process(int /*index*/) const { return false; }
  // Whether every member can read every other's plain memory, as a trial between the actual
  // processes showed. The same on all members.
  virtual bool memory_readable() const { return false; }
  // Copies from `address` in rank `index`'s process. kRemote when it is gone, kSystem when it has
  // no such memory.
  virtual Status read_memory(int /*index*/, void* /*dst*/, uint64_t /*address*/, size_t /*bytes*/) {
    return error(Code::kSystem, "this board does not read memory");
  }
};

// Memory that the executor's waits sleep on, and counters for commGetMemStats.
struct TransportStats {
  size_t host_bytes = 0;    // pinned_bytes included
  size_t pinned_bytes = 0;  // of the library's own memory, for network devices
  int channels = 0;
  int queue_pairs = 0;
  int sockets = 0;
  int threads = 0;
};

// One communicator's use of one kind of transport.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;  // "shm", "tcp", ...

  // Can these two ranks talk by this transport? Pure function of exchanged facts, the same on every
  // rank.
  virtual bool reaches(const PeerFacts& a, const PeerFacts& b) const = 0;

  // Largest segment of its channels: a function of agreed knobs, the same on every rank.
  virtual size_t segment_bytes() const = 0;

  // The two ends of the channel from this rank to `peer`, and from `peer` to this rank. They may
  // still be connecting when returned: reserve() and peek() then say "not ready". connect() may
  // block while the peer's process answers, up to the bootstrap deadline.
  virtual Result<std::unique_ptr<SendChannel>> connect(int peer, int lane) = 0;
  virtual Result<std::unique_ptr<RecvChannel>> accept(int peer, int lane) = 0;

  // Memory that the user had lent (UserMemory) is not lent any more: when this returns, devices
  // know it no more, but for what a transfer still needs. Any thread.
  virtual void drop_ended_memory() {}

  virtual TransportStats stats() const = 0;
};

}  // namespace libcomm
