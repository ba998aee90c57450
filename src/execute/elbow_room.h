// Elbow room: what a waiting rank does when the peer it waits for was put on the same core.
//
// The scheduler places new processes where it likes, and two ranks that exchange small messages on
// one core look to it like one that is never busy for long: it may leave them there for seconds,
// each exchange costing two context switches instead of two cache misses.
#pragma once

#include "transports/transport.h"

namespace libcomm {

// Counts how often a communicator's waits found a peer on their own core.
struct Crowding {
  unsigned looks = 0;
};

// Notes this thread's core on the board. When another rank was last seen on it, gives way: lets the
// other run, and now and then, if this rank has the higher index, moves to a core that no rank is
// on. Moving means taking the others out of this thread's affinity mask and putting the mask back
// at once: what the user allowed stays as it was.
void make_elbow_room(Board& board, Crowding* crowding);

}  // namespace libcomm
