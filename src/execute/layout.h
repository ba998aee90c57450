// Layout: which bytes a chunk is. Turns a schedule's chunk ids into offsets for one operation.
#pragma once

#include <cstddef>
#include <vector>

#include "src/execute/operation.h"
#include "src/schedule/schedule.h"

namespace libcomm {

struct Extent {
  size_t offset = 0;  // bytes from the start of the space (or scratch bank)
  size_t bytes = 0;
};

class Layout {
 public:
  // `slices` > 1 only for sliceable schedules.
  Layout(const Schedule& schedule, const Operation& operation, int slices);

  // A run of `run` chunks from `chunk`, restricted to slice `slice`.
  Extent locate(Space space, int chunk, int run, int slice) const;
  // Where a scratch bank's first byte would be, from the start of the scratch memory. Only the part
  // of a bank that the schedule touches has memory, so this can be negative.
  ptrdiff_t bank_offset(int bank) const { return bank_offsets_[static_cast<size_t>(bank)]; }
  size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  // How one space is cut. Blocks are `count` elements each, or as the table says.
  struct Grid {
    size_t count = 0;
    std::vector<size_t> counts;
    std::vector<size_t> displs;
  };
  struct Range {
    size_t begin = 0, end = 0;  // elements
  };
  const Grid& grid(Space space) const;
  size_t part_elements(size_t block_count) const;
  Range chunk_range(const Grid& grid, int chunk) const;

  int parts_;
  int slices_;
  size_t element_;
  size_t granule_;  // chunk borders are multiples of this many elements
  Space scratch_like_;
  Grid in_, out_, scratch_;
  std::vector<ptrdiff_t> bank_offsets_;
  size_t scratch_bytes_ = 0;
};

}  // namespace libcomm
