// Memory: one rank's buffers in the checker, as cells of one chunk each.
//
// In place, the output's cells are the input's (or the other way round), as the C API defines it
// for each collective. A cell knows the sends that still read it and the lanes that have touched
// it.
#pragma once

#include <vector>

#include "src/schedule/schedule.h"
#include "src/schedule/symbolic/value.h"

namespace libcomm::symbolic {

struct Cell {
  Value value;
  int32_t reading = 0;  // sends in flight that read it
  int16_t writer = kNoLane;
  int16_t reader = kNoLane;

  static constexpr int16_t kNoLane = -1;
  static constexpr int16_t kSeveralLanes = -2;

  // Notes an access by `lane`; false when another lane's access conflicts with it: nothing orders
  // two lanes.
  bool note_read(int lane) {
    if (writer != kNoLane && writer != lane) return false;
    if (reader == kNoLane) reader = static_cast<int16_t>(lane);
    if (reader != lane) reader = kSeveralLanes;
    return true;
  }
  bool note_write(int lane) {
    if (writer != kNoLane && writer != lane) return false;
    if (reader != kNoLane && reader != lane) return false;
    writer = static_cast<int16_t>(lane);
    return true;
  }
};

// Is there an in-place form? Not of the all-to-alls.
bool has_in_place(Collective collective);
// Does rank have this buffer at all? Rooted collectives' buffers exist at the root only.
bool exists(const Schedule& schedule, Space space);

class Memory {
 public:
  Memory(const Schedule& schedule, bool in_place, int slices);

  // nullptr when the run is outside the space, or in a scratch bank that is not there.
  Cell* find(const Ref& ref, int count, int slice);

 private:
  const Schedule* schedule_;
  int cells_per_slice_ = 0;
  int in_ = 0;   // first cell of the input
  int out_ = 0;  // first cell of the output
  struct Bank {
    int cell;  // of chunk `use.first`
    ScratchUse use;
  };
  std::vector<Bank> banks_;
  std::vector<Cell> cells_;
};

// Two chunks with the same class have the same size whatever the buffer's size; others may not.
uint64_t size_class(const Schedule& schedule, Space space, int chunk);

}  // namespace libcomm::symbolic
