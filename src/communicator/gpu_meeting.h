// GpuMeeting: collectives on GPU memory that the ranks reach in place (transports/cuda). The ranks
// tell each other where the buffers are; then the stream of each runs its kernel
// (src/execute/peer_kernels.h), and all wait until the kernels of all are over.
#pragma once

#include "src/base/status.h"
#include "src/communicator/gpu_windows.h"
#include "src/device/kernels/arguments.h"
#include "src/execute/operation.h"
#include "transports/cuda/peer_memory.h"

namespace libcomm {

class Communicator;

// What a rank tells the others of its part in a collective. Wire struct.
struct GpuCard {
  Signature signature;  // filled in by meet()
  uint64_t reachable = 0;
  uint64_t scalar = 0;           // of a pre-multiplied operator: the bits of one element
  GpuGuess guess;                // of the rank's copies
  cuda::ExportedMemory in, out;  // no address: it has no such buffer
};

class GpuMeeting {
 public:
  GpuMeeting(Communicator& communicator, cuda::PeerMemory& memory)
      : communicator_(communicator), memory_(memory) {}

  // In the thread of the call, which may give the memory up afterwards, in the order of its stream.
  // With the memory's context current.
  GpuCard describe(const Operation& operation);

  // The rest on the engine's thread, collective. Errors are those of the communicator, which has
  // failed then.

  // *together: all ranks reach all buffers, and `arguments`, all zero before, are those of this
  // rank's kernel. *anew: some rank's copies rest on a wrong guess, and all must do the call in
  // another way, when these are over. With the memory's context current and outside captures.
  Status meet(const Operation& operation, GpuCard mine, cuda::LateArguments* arguments,
              bool* together, bool* anew);
  // This rank's kernel is over; returns when all are.
  Status leave();

 private:
  bool is_right(const Operation& operation, const std::vector<GpuCard>& cards, size_t rank) const;

  Communicator& communicator_;
  cuda::PeerMemory& memory_;
};

}  // namespace libcomm
