#include "src/schedule/symbolic/memory.h"

#include <algorithm>

namespace libcomm::symbolic {

bool has_in_place(Collective collective) {
  return collective != Collective::kAllToAll && collective != Collective::kAllToAllV;
}

bool exists(const Schedule& schedule, Space space) {
  if (schedule.rank == schedule.root) return true;
  switch (schedule.collective) {
    case Collective::kBroadcast:
    case Collective::kScatter:
      return space != Space::kIn;
    case Collective::kReduce:
    case Collective::kGather:
      return space != Space::kOut;
    default:
      return true;
  }
}

Memory::Memory(const Schedule& schedule, bool in_place, int slices) : schedule_(&schedule) {
  const int in_chunks = schedule.chunks_in(Space::kIn);
  const int out_chunks = schedule.chunks_in(Space::kOut);
  const int own = schedule.rank * schedule.chunks_per_block;
  const bool both = exists(schedule, Space::kIn) && exists(schedule, Space::kOut);
  if (in_place && both && has_in_place(schedule.collective)) {
    // The smaller buffer is this rank's block of the larger one.
    in_ = schedule.in_blocks < schedule.out_blocks ? own : 0;
    out_ = schedule.out_blocks < schedule.in_blocks ? own : 0;
    cells_per_slice_ = std::max(in_chunks, out_chunks);
  } else {
    in_ = 0;
    out_ = in_chunks;
    cells_per_slice_ = in_chunks + out_chunks;
  }
  for (const ScratchUse& use : scratch_use(schedule)) {
    banks_.push_back({cells_per_slice_, use});
    cells_per_slice_ += use.count;
  }
  cells_.resize(static_cast<size_t>(cells_per_slice_) * static_cast<size_t>(slices));
  if (!exists(schedule, Space::kIn)) return;
  for (int slice = 0; slice < slices; ++slice)
    for (int chunk = 0; chunk < in_chunks; ++chunk)
      cells_[static_cast<size_t>(slice * cells_per_slice_ + in_ + chunk)].value =
          contribution(schedule.rank, slice * in_chunks + chunk);
}

Cell* Memory::find(const Ref& ref, int count, int slice) {
  if (ref.chunk < 0 || count < 1 || ref.chunk + count > schedule_->chunks_in(ref.space))
    return nullptr;
  int cell = 0;
  switch (ref.space) {
    case Space::kNone:
      return nullptr;
    case Space::kIn:
      cell = in_ + ref.chunk;
      break;
    case Space::kOut:
      cell = out_ + ref.chunk;
      break;
    case Space::kScratch:
      if (ref.bank >= banks_.size()) return nullptr;
      cell = banks_[ref.bank].cell + ref.chunk - banks_[ref.bank].use.first;
      break;
  }
  return &cells_[static_cast<size_t>(slice * cells_per_slice_ + cell)];
}

uint64_t size_class(const Schedule& schedule, Space space, int chunk) {
  const int parts = schedule.chunks_per_block;
  const auto at = [parts](int block, int part) {
    return static_cast<uint64_t>(block) * static_cast<uint64_t>(parts) +
           static_cast<uint64_t>(part);
  };
  const Space like = space == Space::kScratch ? schedule.scratch_like : space;
  const int block = chunk / parts;
  const int part = chunk % parts;
  switch (schedule.collective) {
    case Collective::kAllGatherV:
      return like == Space::kIn ? at(schedule.rank, part) : at(block, part);
    case Collective::kReduceScatterV:
      return like == Space::kOut ? at(schedule.rank, part) : at(block, part);
    case Collective::kAllToAllV:
      return like == Space::kIn ? at(schedule.rank * schedule.nranks + block, part)
                                : at(block * schedule.nranks + schedule.rank, part);
    default:
      return static_cast<uint64_t>(part);
  }
}

}  // namespace libcomm::symbolic
