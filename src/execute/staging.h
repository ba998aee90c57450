// Staging: how operations on GPU memory become operations on host memory.
//
// The operations of a group are cut into stages. A stage copies pieces of the inputs into a slot of
// pinned memory, runs operations on these, and copies the results back. Stages follow each other on
// the GPU's stream with two slots, so that the copies of one overlap with the exchange of another.
//
// What is cut where is the same on all ranks, whose stages must match:
//  - a collective that fits goes whole, together with its neighbours; a larger one is cut into
//    windows, each a range of every block;
//  - messages come after the collectives, as in a group on host memory. In each round a pair of
//    ranks exchanges the next bytes of each direction, as many as kMessageBytes(slot) says: whole
//    messages, or a piece of one. AllToAllV is such messages too, since no rank knows all counts.
//    A peer whose transport takes GPU memory itself exchanges everything in one round, from and to
//    the memory where it is.
//
// Where the ranks reach each other's GPU memory, each collective that peer kernels can do
// (src/execute/peer_kernels.h) has two stages that stage nothing: in kMeet the ranks tell each
// other where their buffers are (and a scalar on the GPU, the one thing that is staged then),
// whereupon the stream runs the kernel; in kLeave they wait for each other's. If some rank's
// buffers cannot be reached, the call is staged after all, within kMeet; the rank itself may have
// the stages for it instead of kLeave.
//
// Where the executor of GPUs does a call (src/device/kernels/execute_step.h), it has one stage,
// kExecute, which is a kernel. A scalar on the GPU is all that it stages. Of an AllToAllV it does
// the blocks of `most_executed` bytes or fewer; the others are messages.
//
// Where ranks reach each other's GPU memory, messages of kLeastInPlace bytes and more are not
// staged either: the receiver's kernel copies each out of the sender's memory. The stages of a
// group's messages are kMessages: in the first the sends say where their memory is; after each but
// the last a kernel copies what has come so far, since what comes later may come only when another
// rank has gone on; and the last ends when other ranks have copied what this one sends. Smaller
// messages are staged in the first and the last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/execute/operation.h"

namespace libcomm {

struct StagedCopy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Stage {
  enum class Kind { kStaged, kMeet, kLeave, kExecute, kMessages };
  Kind kind = Kind::kStaged;
  size_t direct = 0;           // of kMeet, kLeave, kExecute: the index of the call
  std::vector<StagedCopy> in;  // into the slot
  // On the slot's memory, or on the caller's where it is the host's. Of kMessages: those with
  // on_gpu are not staged; the first stage has them all.
  std::vector<Operation> operations;
  // Where operations read their scalars, once `in` is done; of kMeet and kExecute that of the call.
  struct Scalar {
    size_t operation;
    const void* at;
  };
  std::vector<Scalar> scalars;
  std::vector<StagedCopy> out;  // out of the slot
  size_t bytes = 0;             // of the slot
  // Of kMessages: how many kernels come before it and in all, and what one may have to do.
  size_t round = 0, rounds = 0;
  size_t segments = 0, largest = 0;
  std::vector<StagedCopy> by_host;  // messages to oneself in host memory; in the first stage
  bool is_last() const { return round == rounds; }
};

// Bytes of a message from which it is not staged where GPU memory is reached; small ones take less
// time so, and their sender need not wait for the receiver. Fits in a round's share of a slot.
inline constexpr size_t kLeastInPlace = 8192;

// What a slot must have at least for a group of so many ranks.
size_t least_slot_bytes(int nranks);

struct StagingPlace {
  int rank = 0;
  int nranks = 1;
  std::byte* slots[2] = {};  // stage i uses slot i % 2
  size_t slot_bytes = 0;     // at least least_slot_bytes(nranks)
  // By rank: its transport takes GPU memory, and thinks the same of this rank. Empty: none.
  std::span<const char> takes_gpu_memory;
  // By call; empty: all are staged.
  enum class Path { kStaged, kPeers, kOwnStages, kExecutor };
  std::span<const Path> paths;
  size_t most_executed = SIZE_MAX;
  bool messages_in_place = false;  // all ranks reach each other's GPU memory
};
std::vector<Stage> plan_stages(std::span<const Operation> operations, const StagingPlace& place);

// What a collective of one rank does.
StagedCopy lone_copy(const Operation& operation);

// Bytes that an operation reads and writes at this rank: up to the end of the last block.
struct Reach {
  size_t in = 0;
  size_t out = 0;
};
Reach reach_of(const Operation& operation, int rank, int nranks);

}  // namespace libcomm
