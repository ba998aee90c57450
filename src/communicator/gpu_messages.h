// GpuMessages: messages of GPU memory between ranks that reach each other's (transports/cuda).
//
// A sender tells its receiver where the memory is, with a card that travels in place of the
// message: so what the two ranks call is compared as ever, and each pair's messages stay in order
// however the ranks group them. The receiver's kernel copies out of the sender's memory; then its
// engine counts the message on the board, where the sender waits for it. One meeting per message,
// and a receiver needs nothing that others must reach.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "src/base/clock.h"
#include "src/device/kernels/arguments.h"
#include "src/execute/execution.h"
#include "src/execute/p2p.h"
#include "src/execute/staging.h"
#include "transports/cuda/peer_memory.h"

namespace libcomm {

class Communicator;

// The messages of one stage of a work and of those after it, from the first to the last. On the
// engine's thread. Errors are those of the communicator, which has failed then.
class GpuMessages final : public Execution {
 public:
  // `stage` is the first and outlives this. `cards`: one for each of its operations, where those
  // that are sent in place have their memory.
  GpuMessages(Communicator& communicator, cuda::PeerMemory& memory, const Stage& stage,
              std::span<const cuda::ExportedMemory> cards);
  ~GpuMessages() override;
  GpuMessages(const GpuMessages&) = delete;
  GpuMessages& operator=(const GpuMessages&) = delete;

  // Waits until messages have come, and fills in what the kernel is to copy, one of `rounds_left`.
  // With the memory's context current and outside captures.
  Status take(size_t rounds_left, cuda::CopyArguments* arguments);
  // All cards, and all that is staged, have gone and come.
  bool exchanged() const { return exchanged_; }
  // Passes on what can go now. For the time between two stages, in which others may need it.
  Status go_on();
  // The kernel is over: tells those who have sent what it has copied.
  void copied();
  // Waits for the rest: until all is sent, and has been copied by those who receive it.
  Status finish();

  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  // A message in place, by its number among the calls.
  struct Receive {
    size_t call;
    std::byte* to;
    size_t bytes;
    int peer;
    enum class State { kAwaited, kCopying, kOver } state = State::kAwaited;
  };
  size_t count_come() const;
  bool enough_has_come();
  bool all_are_copied() const;

  Communicator& communicator_;
  cuda::PeerMemory& memory_;
  P2pBatch& messages_;
  std::vector<cuda::ExportedMemory> cards_;  // by call
  std::vector<Receive> receives_;
  std::vector<uint64_t> awaited_;  // by rank: its count on the board when it has copied all
  bool exchanged_ = false;
  bool finishing_ = false;
  size_t needed_ = 0;  // receives that must have come
  Clock::time_point some_since_{};
};

}  // namespace libcomm
