#include "src/execute/layout.h"

#include <algorithm>

namespace libcomm {
namespace {

constexpr size_t kCacheLine = 64;

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

}  // namespace

Layout::Layout(const Schedule& schedule, const Operation& operation, int slices)
    : parts_(schedule.chunks_per_block),
      slices_(slices),
      element_(size_of(operation.type)),
      granule_(std::max<size_t>(1, kCacheLine / size_of(operation.type))),
      scratch_like_(schedule.scratch_like) {
  in_ = {operation.count, operation.in_table().counts, operation.in_table().displs};
  out_ = {operation.count, operation.out_table().counts, operation.out_table().displs};
  if (schedule.scratch_banks == 0) return;
  // A bank packs the blocks of the space it is like; what the schedule touches of each bank follows
  // that of the one before.
  scratch_ = grid(scratch_like_);
  size_t total = 0;
  for (size_t block = 0; block < scratch_.counts.size(); ++block) {
    scratch_.displs[block] = total;
    total += scratch_.counts[block];
  }
  for (const ScratchUse& use : scratch_use(schedule)) {
    Range range;
    if (use.count > 0)
      range = {chunk_range(scratch_, use.first).begin,
               chunk_range(scratch_, use.first + use.count - 1).end};
    bank_offsets_.push_back(static_cast<ptrdiff_t>(scratch_bytes_) -
                            static_cast<ptrdiff_t>(range.begin * element_));
    scratch_bytes_ += divide_up((range.end - range.begin) * element_, kCacheLine) * kCacheLine;
  }
}

const Layout::Grid& Layout::grid(Space space) const {
  if (space == Space::kScratch) return scratch_;
  return space == Space::kOut ? out_ : in_;
}

size_t Layout::part_elements(size_t block_count) const {
  if (parts_ == 1) return block_count;
  return divide_up(divide_up(block_count, static_cast<size_t>(parts_)), granule_) * granule_;
}

Layout::Range Layout::chunk_range(const Grid& grid, int chunk) const {
  const size_t block = static_cast<size_t>(chunk / parts_);
  const size_t part = static_cast<size_t>(chunk % parts_);
  const bool table = !grid.counts.empty();
  const size_t count = table ? grid.counts[block] : grid.count;
  const size_t base = table ? grid.displs[block] : block * grid.count;
  const size_t each = part_elements(count);
  return {base + std::min(part * each, count), base + std::min((part + 1) * each, count)};
}

Extent Layout::locate(Space space, int chunk, int run, int slice) const {
  const Grid& cut = grid(space);
  Range range = chunk_range(cut, chunk);
  if (run > 1) range.end = chunk_range(cut, chunk + run - 1).end;
  if (slices_ > 1) {
    const size_t length = range.end - range.begin;
    const size_t block = static_cast<size_t>(chunk / parts_);
    const size_t count = cut.counts.empty() ? cut.count : cut.counts[block];
    const size_t each =
        divide_up(divide_up(part_elements(count), static_cast<size_t>(slices_)), granule_) *
        granule_;
    const size_t begin = std::min(static_cast<size_t>(slice) * each, length);
    const size_t end = std::min((static_cast<size_t>(slice) + 1) * each, length);
    range = {range.begin + begin, range.begin + end};
  }
  return {range.begin * element_, (range.end - range.begin) * element_};
}

}  // namespace libcomm
