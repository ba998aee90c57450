// Schedule: what one rank does in one collective, as plain data.
//
// An algorithm (algorithms/) writes a schedule; it does no I/O and knows no byte counts and no
// transport. The checker runs all ranks' schedules symbolically, an executor runs one rank's over
// channels, a cost model prices it.
//
// Vocabulary
//   block   the part of a buffer that the collective's definition names: an all-gather's output has
//           one block per rank, an all-reduce's buffers are one block.
//   chunk   an equal part of a block: chunk id = block * chunks_per_block + part. The last chunks
//   may
//           be one granule shorter or empty; both ends know every chunk's size, and a message of
//           size zero is not sent.
//   space   input, output, or a scratch bank. A scratch bank has the same chunks as the larger of
//           input and output (Schedule::scratch_like), so that a chunk id means the same size
//           everywhere.
//   lane    an independent sequence of steps. Steps of a lane begin in order. A send is posted and
//           the lane goes on; a later step of the lane that writes what is still being sent waits
//           for it (the executor sees to that). Messages between two ranks match in order per lane.
//   slice   a run of a whole schedule over a part of every chunk; slices of one operation overlap
//           between ranks. The planner decides how many.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace libcomm {

enum class Collective : uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kReduce,
  kAllToAll,
  kGather,
  kScatter,
  kAllGatherV,
  kReduceScatterV,
  kAllToAllV,
  kBarrier,
  kSendRecv,  // point to point; has no schedule
};
inline constexpr int kNumCollectives = 13;
const char* name_of(Collective collective);  // "allreduce", "reducescatter", ...

// Blocks of the input and of the output buffer. Gather's output and scatter's input exist at the
// root only; broadcast's input is read at the root only.
struct BlockShape {
  int in_blocks;
  int out_blocks;
};
BlockShape block_shape(Collective collective, int nranks);

enum class Space : uint8_t { kNone, kIn, kOut, kScratch };

// A run of chunks in one space. In round i of a repeat, the first chunk is
// (chunk + i * stride) mod (chunks in the space); a run does not wrap.
struct Ref {
  Space space = Space::kNone;
  uint8_t bank = 0;  // scratch only
  int32_t chunk = 0;
  int32_t stride = 0;

  bool operator==(const Ref&) const = default;
};

enum class StepKind : uint8_t {
  kSend,        // src -> peer
  kRecv,        // peer -> dst
  kRecvReduce,  // dst = src op received (src is this rank's own part; often src == dst)
  // The fused steps. With a dst they mean the two plain steps: the send is posted from dst and
  // never holds up the receive (a ring would deadlock otherwise). With dst kNone the bytes pass
  // through: the receive proceeds as fast as the channel to peer2 takes them.
  kRecvReduceSend,  // result = src op received; to dst and to peer2
  kRecvCopySend,    // received to dst and to peer2
  kCopy,            // dst = src
  kReduce,          // dst = operands[first] op ... in order, rounded once
  kSignal,          // an empty message to peer
  kWait,            // takes an empty message from peer
  kRepeat,          // the next `body` steps are done `times` times (round 0, 1, ...); not nested
};
const char* name_of(StepKind kind);

struct Step {
  StepKind kind = StepKind::kCopy;
  // The result holds every rank's contribution: an average divides here, exactly once.
  bool final = false;
  int32_t count = 1;  // chunks in the run; all Refs of the step have it
  Ref src;
  Ref dst;
  int32_t peer = -1;   // rank; in round i: (peer + i * peer_stride) mod nranks
  int32_t peer2 = -1;  // fused sends only; the same in every round
  int32_t peer_stride = 0;
  // kReduce: operands [operand, operand + operands) of Schedule::operands.
  int32_t operand = 0;
  int32_t operands = 0;
  // kRepeat
  int32_t times = 0;
  int32_t body = 0;
};

struct Lane {
  std::vector<Step> steps;
};

// A schedule that is, as a whole, one well-known exchange. An executor with mapped memory between
// all the ranks may do it without interpretation; the steps give the meaning, and the bits are the
// same.
enum class Fused : uint8_t { kNone, kOneshotAllReduce, kTwoshotAllReduce };

struct Schedule {
  Collective collective = Collective::kAllReduce;
  std::string algorithm;  // "ring", "hd", ...
  int nranks = 1;
  int rank = 0;
  int root = 0;
  int in_blocks = 1;
  int out_blocks = 1;
  int chunks_per_block = 1;
  Space scratch_like = Space::kIn;  // whose chunks a scratch bank has
  int scratch_banks = 0;
  // May run as several slices: true only if every run has count == 1, on every rank.
  bool sliceable = true;
  Fused fused = Fused::kNone;
  std::vector<Lane> lanes;
  std::vector<Ref> operands;

  int chunks_in(Space space) const {
    const Space like = space == Space::kScratch ? scratch_like : space;
    return (like == Space::kOut ? out_blocks : in_blocks) * chunks_per_block;
  }
};

// What an algorithm is asked for. Everything in it is the same on all ranks.
struct ScheduleRequest {
  Collective collective = Collective::kAllReduce;
  int nranks = 1;
  int root = 0;
  int lanes = 1;                // wanted; an algorithm with a fixed number ignores it
  std::vector<int> host_of;     // host index of each rank, dense from 0; empty: one host
  std::vector<int> ring_order;  // ranks in ring order; empty: 0, 1, 2, ...
  // Chunks per lane that a two-way algorithm (tree's all-reduce) keeps in flight at once. Slices
  // cannot overlap such a way up with the way down of an earlier slice; this can. 1 suits small
  // messages.
  int pipeline = 1;
};

struct Algorithm {
  const char* name;      // as in COMM_ALGO
  const char* sentence;  // one line for docs and logs, with the source
  bool (*supports)(const ScheduleRequest& request);
  // One rank's schedule; `supports` holds. Pure.
  Schedule (*build)(const ScheduleRequest& request, int rank);
};

// One step of round `round` with strides applied: what readers use instead of doing the arithmetic.
Step expand(const Schedule& schedule, const Step& step, int round);

// What a schedule touches of one scratch bank; an executor need not have memory for the rest.
struct ScratchUse {
  int32_t first = 0;
  int32_t count = 0;  // 0: nothing
};
std::vector<ScratchUse> scratch_use(const Schedule& schedule);  // one per bank

// One line of text for people: "recv_reduce from 3: out[4] = in[4] op received".
std::string to_string(const Schedule& schedule, const Step& step);

}  // namespace libcomm
