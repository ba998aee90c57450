// What the executor's kernel is told: the program of one rank, and where the connections are.
//
// A program is one rank's schedule (src/schedule) for one operation: per lane a list of steps, with
// bytes in the place of chunks. A block does a lane. Each step moves the bytes [w * window, (w + 1)
// * window) of its chunk in window w, so that a program serves any size.
//
// Every rank has an area in GPU memory, which all ranks reach. In it, for each peer and lane, is
// what the peer sends here:
//   lines  for small operations: 16 bytes, twice 4 bytes of data and 4 of flag. A flag that is
//          right says that the data beside it has come: one way, no fence.
//   ring   for others: messages, each a header and its bytes, one after the other. The sender moves
//          the head when the bytes are there, the receiver the tail when it has taken them. The
//          header is the call and the bytes of the whole chunk: a message of another call, or of
//          another size than its receiver knows, is never taken.
// Positions count all lines and bytes ever sent on a connection. They are in the area too, so that
// a launch can be repeated by a graph.
//
// Of an all-to-all-v a rank knows its own sizes only, so each rank tells each of the others how
// many bytes its chunk has (`announces`), by the header of a message which may have no bytes.
//
// A window is so small that everything which one lane sends to one peer in it fits in half of a
// connection. So a step waits only for bytes to come, or for what the peer has still to take of
// earlier windows; that no rank waits for ever follows from the checker's proof (src/schedule),
// window by window.
//
// Compiled by the host compiler and by nvcc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/device/kernels/arguments.h"
#include "src/device/kernels/platform.h"
#include "src/reduce/types.h"

namespace libcomm::cuda {

inline constexpr int kMostExecuteRanks = kMaxSources;
inline constexpr int kMostExecuteLanes = 16;

// As StepKind's that move bytes.
enum class ExecuteKind : uint8_t {
  kSend,
  kRecv,
  kRecvReduce,
  kRecvReduceSend,
  kRecvCopySend,
  kCopy,
  kReduce,
};
enum class ExecuteSpace : uint8_t { kNone, kIn, kOut, kScratch };

struct ExecuteStep {
  ExecuteKind kind = ExecuteKind::kCopy;
  ExecuteSpace src_space = ExecuteSpace::kNone;
  ExecuteSpace dst_space = ExecuteSpace::kNone;
  uint8_t final = 0;  // an average divides here
  int16_t peer = -1;
  int16_t peer2 = -1;  // of fused sends
  uint64_t bytes = 0;  // of the whole chunk
  uint64_t src = 0;    // from the beginning of the space
  uint64_t dst = 0;
  uint32_t operand = 0;  // kReduce: the first of so many
  uint32_t operands = 0;
};
static_assert(sizeof(ExecuteStep) == 40);

struct ExecuteOperand {
  uint64_t offset = 0;
  ExecuteSpace space = ExecuteSpace::kNone;
};

// How the area of a rank is cut; the same at all ranks. Sizes in bytes.
struct AreaShape {
  int nranks = 0;
  int lanes = 0;
  uint64_t lines = 0;          // of a connection
  uint64_t ring_bytes = 0;     // of a connection; a multiple of 256
  uint64_t scratch_bytes = 0;  // of the rank itself
};

inline constexpr uint64_t kLineBytes = 16;
inline constexpr uint64_t kLineData = 8;
inline constexpr uint64_t kMessageHeader = 16;
// What begins an area: the blocks of the running launch that are done.
inline constexpr uint64_t kAreaHeader = 256;
// Of each connection, in lines of their own: what the peer writes about what it sends here; what it
// writes about what it took; what this rank keeps for itself.
inline constexpr uint64_t kConnectionBytes = 256, kHeadAt = 0, kRingTailAt = 64, kLineTailAt = 72,
                          kRingSentAt = 128, kRingReceivedAt = 136, kLinesSentAt = 144,
                          kLinesReceivedAt = 152;

// Which connection of `rank` is the one with `peer`.
COMM_DEVICE_CODE uint64_t connection_of(const AreaShape& shape, int rank, int peer, int lane) {
  return static_cast<uint64_t>(peer < rank ? peer : peer - 1) * static_cast<uint64_t>(shape.lanes) +
         static_cast<uint64_t>(lane);
}
COMM_DEVICE_CODE uint64_t connections(const AreaShape& shape) {
  return static_cast<uint64_t>(shape.nranks - 1) * static_cast<uint64_t>(shape.lanes);
}
COMM_DEVICE_CODE uint64_t counters_at(uint64_t connection) {
  return kAreaHeader + connection * kConnectionBytes;
}
COMM_DEVICE_CODE uint64_t lines_at(const AreaShape& shape, uint64_t connection) {
  return counters_at(connections(shape)) + connection * shape.lines * kLineBytes;
}
COMM_DEVICE_CODE uint64_t ring_at(const AreaShape& shape, uint64_t connection) {
  return lines_at(shape, connections(shape)) + connection * shape.ring_bytes;
}
COMM_DEVICE_CODE uint64_t scratch_at(const AreaShape& shape) {
  return ring_at(shape, connections(shape));
}
COMM_DEVICE_CODE uint64_t area_bytes(const AreaShape& shape) {
  return scratch_at(shape) + shape.scratch_bytes;
}

// In pinned memory: a message whose chunk has not the bytes that its receiver knows of. `peer` is
// written last: the sender plus one, 0: there was none.
struct ExecuteMismatch {
  uint64_t sent = 0;
  uint64_t expected = 0;
  uint32_t peer = 0;
};

// What a lane that has waited for a while says, again and again: for which peer (-1: none any
// more), and how often it has said something. Who sees it change twice knows that the lane has
// looked in between.
COMM_DEVICE_CODE uint32_t await_word(int peer, uint32_t times) {
  return static_cast<uint32_t>(peer + 1) | times << 8;
}
COMM_DEVICE_CODE int peer_of_await_word(uint32_t word) { return static_cast<int>(word & 0xFF) - 1; }
static_assert(kMostExecuteRanks < 255);

struct ExecuteArguments {
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  bool by_lines = false;
  bool asks_first = false;  // a launch that finds *abort set touches nothing
  // What is read of `in` is multiplied by the scalar first, and rounded to `type`.
  bool premultiplies = false;
  int divisor = 1;  // of final steps
  int rank = 0;
  uint32_t lanes = 0;    // blocks
  uint32_t windows = 0;  // how many
  uint64_t window = 0;   // bytes of each chunk in one
  // Chunks of other sizes are not moved: those of no bytes, and of more than so many. Of
  // `announces` their messages have the header only; otherwise there are none.
  bool announces = false;
  uint64_t most_bytes = UINT64_MAX;
  uint64_t call = 0;  // what all ranks do: others' messages are not taken
  AreaShape shape;
  uint64_t scalar = 0;              // the bits of one element of `type`, in the low bytes
  const void* scalar_at = nullptr;  // in pinned memory, where they are found instead
  const void* in = nullptr;
  void* out = nullptr;
  std::byte* areas[kMostExecuteRanks] = {};
  const ExecuteStep* steps = nullptr;
  const ExecuteOperand* operands = nullptr;
  uint32_t operand_count = 0;
  uint32_t lane_begin[kMostExecuteLanes + 1] = {};
  // In pinned memory. The launch writes `number` when it begins, and when it is over; it gives up
  // when *abort is not zero.
  uint32_t number = 0;
  uint32_t* begun = nullptr;
  uint32_t* ended = nullptr;
  const uint32_t* abort = nullptr;
  uint32_t* awaits = nullptr;  // by lane: what await_word() makes
  ExecuteMismatch* mismatch = nullptr;
};
static_assert(sizeof(ExecuteArguments) <= kMaxArgumentBytes);

}  // namespace libcomm::cuda
