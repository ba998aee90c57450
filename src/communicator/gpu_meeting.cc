#include "src/communicator/gpu_meeting.h"

#include <algorithm>
#include <vector>

#include "src/communicator/communicator.h"
#include "src/execute/peer_kernels.h"
#include "src/execute/staging.h"

namespace libcomm {

GpuCard GpuMeeting::describe(const Operation& operation) {
  GpuCard card;
  const size_t element = size_of(operation.type);
  const Reach reach = reach_of(operation, communicator_.rank_, communicator_.nranks_);
  const auto reachable = [&](const void* address, size_t bytes, cuda::ExportedMemory* memory) {
    if (bytes == 0) return true;
    return reinterpret_cast<uintptr_t>(address) % element == 0 &&
           memory_.describe(address, bytes, memory);
  };
  // In all-to-all, what a rank fetches would be what another has already overwritten.
  const bool overwrites =
      operation.collective == Collective::kAllToAll && operation.in == operation.out;
  const bool all = !overwrites && reachable(operation.in, reach.in, &card.in) &&
                   reachable(operation.out, reach.out, &card.out);
  card.reachable = all ? 1 : 0;
  return card;
}

Status GpuMeeting::meet(const Operation& operation, GpuCard mine, cuda::LateArguments* arguments,
                        bool* together, bool* anew) {
  *together = false;
  *anew = false;
  const auto rank = static_cast<size_t>(communicator_.rank_);
  // The number is that of the meeting.
  mine.signature = signature_of(operation, communicator_.operations_ + 1);
  std::vector<GpuCard> cards(static_cast<size_t>(communicator_.nranks_));
  cards[rank] = mine;
  Operation exchange;
  exchange.collective = Collective::kAllGather;
  exchange.type = DataType::kUint8;
  exchange.count = sizeof(GpuCard);
  exchange.in = &cards[rank];
  exchange.out = cards.data();
  exchange.table_hash = kGpuMeeting;
  COMM_TRY(communicator_.run_queued({&exchange, 1}));
  for (size_t peer = 0; peer < cards.size(); ++peer) {
    const Signature& theirs = cards[peer].signature;
    if (theirs != mine.signature)
      return communicator_.fail(
          mismatch(communicator_.rank_, mine.signature, 0, static_cast<int>(peer), theirs, 0));
  }
  *together = std::all_of(cards.begin(), cards.end(),
                          [](const GpuCard& card) { return card.reachable != 0; });
  for (size_t each = 0; each < cards.size(); ++each)
    *anew = *anew ||
            (cards[each].guess.window != 0 && (!*together || !is_right(operation, cards, each)));
  if (*anew) communicator_.gpu_windows_.stop(operation.collective);
  if (!*together) return Status::ok();

  std::vector<PeerBuffers> buffers(cards.size());
  for (size_t peer = 0; peer < cards.size(); ++peer) {
    const auto reach = [&](const cuda::ExportedMemory& memory) -> Result<std::byte*> {
      if (memory.address == 0) return static_cast<std::byte*>(nullptr);
      return memory_.import(static_cast<int>(peer), memory);
    };
    auto in = reach(cards[peer].in);
    if (!in) return communicator_.fail(in.status());
    auto out = reach(cards[peer].out);
    if (!out) return communicator_.fail(out.status());
    buffers[peer] = {*in, *out, cards[peer].scalar};
  }
  const PeerKernel kernel = peer_kernel(operation, communicator_.rank_, buffers);
  if (kernel.reduction) arguments->reduction = *kernel.reduction;
  if (kernel.copies) arguments->copies = *kernel.copies;
  return Status::ok();
}

// Whether what the copies of `rank` read is where it has guessed.
bool GpuMeeting::is_right(const Operation& operation, const std::vector<GpuCard>& cards,
                          size_t rank) const {
  for (size_t peer = 0; peer < cards.size(); ++peer) {
    const bool is_read = operation.collective == Collective::kBroadcast
                             ? static_cast<int>(peer) == operation.root
                             : peer != rank;
    if (is_read && !communicator_.gpu_windows_.is_right(cards[rank].guess, static_cast<int>(peer),
                                                        cards[peer].in))
      return false;
  }
  return true;
}

Status GpuMeeting::leave() {
  Operation over;
  over.collective = Collective::kBarrier;
  return communicator_.run_queued({&over, 1});
}

}  // namespace libcomm
