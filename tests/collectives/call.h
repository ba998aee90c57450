// Call: one call of a collective in the matrix: where each rank's blocks lie, how it is made
// through the C API, and what must be in memory afterwards.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "tests/collectives/elements.h"
#include "tests/collectives/world.h"

namespace matrix {

enum class Collective {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kBcast,
  kReduce,
  kAllToAll,
  kGather,
  kScatter,
  kAllGatherV,
  kReduceScatterV,
  kAllToAllV,
  kRing
};
inline constexpr int kNumCollectives = 13;
const char* name_of(Collective collective);
bool reduces(Collective collective);

// Where buffers are: kShared from commMemAlloc, kMixed sends from plain and receives into shared
// memory.
enum class Memory { kPlain, kShared, kMixed };

struct Call {
  Collective collective = Collective::kAllReduce;
  commDataType_t type = commFloat32;
  elements::Op op = elements::Op::kSum;
  size_t count = 0;
  int root = 0;
  bool in_place = false;
  Memory memory = Memory::kPlain;
  uint64_t seed = 0;  // names the call; its data follows from it

  std::string to_string() const;
};

// Memory of one rank that calls reuse: regions in plain and in commMemAlloc memory.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  // At least `bytes` bytes; `which` tells regions apart. Throws world::Failed.
  unsigned char* region(bool shared, int which, size_t bytes);

 private:
  struct Region {
    unsigned char* data = nullptr;
    size_t bytes = 0;
  };
  Region plain_[2], shared_[2];
};

// Makes the call on this rank and checks the result, the guards round the buffers and the send
// buffer. Throws world::Failed when the library returns an error.
void perform(world::Rank& rank, Arena& arena, const Call& call);

}  // namespace matrix
