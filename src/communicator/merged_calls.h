// MergedCalls: many small collectives of one group, carried out as one.
//
// What a small collective costs is the exchange, not its bytes. Calls of one group that follow each
// other and differ in nothing but their buffers and counts are therefore packed: their inputs
// behind each other, block by block, then one exchange, then the outputs back. Every rank packs
// alike, since groups are alike on all ranks; a rank whose group differs is named, as for any other
// mismatch.
//
// Results have the same bits as without: only algorithms are used that reduce every element in the
// same order wherever in a buffer it lies.
#pragma once

#include <span>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/execute/operation.h"
#include "src/plan/planner.h"

namespace libcomm {

class MergedCalls {
 public:
  // Most bytes of a call that is packed, and of the larger buffer of all together.
  static constexpr size_t kMostOfOne = size_t{4} << 10;
  static constexpr size_t kMostTogether = size_t{16} << 10;

  // Packs the operations from `from` on that go together, and returns how many entries of
  // `operations` they span (messages between them are skipped); 0 when there are not two.
  Result<size_t> pack(std::span<const Operation> operations, size_t from, int rank,
                      Planner& planner);
  // The call that stands for them; until the next pack().
  const Operation& together() const { return together_; }
  // Brings the results to where they belong.
  void unpack() const;

 private:
  struct Blocks {
    size_t in = 0, out = 0;  // blocks of `count` elements in the two buffers of this rank
  };
  static Blocks blocks_of(const Operation& operation, int rank, int nranks);
  static bool packable(const Operation& operation, int nranks);
  static bool go_together(const Operation& a, const Operation& b);
  Result<bool> keeps_bits(Planner& planner) const;

  std::vector<const Operation*> calls_;
  Operation together_;
  Blocks blocks_;
  AlignedBuffer in_, out_;
};

}  // namespace libcomm
