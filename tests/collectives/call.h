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
// memory, kGpu in memory of the GPU that is current.
enum class Memory { kPlain, kShared, kMixed, kGpu };

struct Call {
  Collective collective = Collective::kAllReduce;
  commDataType_t type = commFloat32;
  elements::Op op = elements::Op::kSum;
  size_t count = 0;
  int root = 0;
  bool in_place = false;
  Memory memory = Memory::kPlain;
  uint64_t seed = 0;  // names the call; its data follows from it
  // For kGpu: what is there before is put on the stream, then the call, then what takes the result.
  cudaStream_t stream = nullptr;

  std::string to_string() const;
};

// GPU memory and the ordinary memory that it is filled from and read into.
class GpuMemory {
 public:
  virtual ~GpuMemory() = default;
  // Ordinary memory with as much of the GPU's behind it; lives as long as this object.
  virtual unsigned char* allocate(size_t bytes) = 0;
  virtual unsigned char* on_gpu(unsigned char* ordinary) = 0;
  // Put copies of everything on the stream; the second waits for it.
  virtual void upload(cudaStream_t stream) = 0;
  virtual void download(cudaStream_t stream) = 0;
};

// Memory of one rank that calls reuse: regions in plain and in commMemAlloc memory.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  // At least `bytes` bytes; `which` tells regions apart. Throws world::Failed.
  unsigned char* region(Memory kind, int which, size_t bytes);
  std::unique_ptr<GpuMemory> gpu;  // set by tests with kGpu

 private:
  struct Region {
    unsigned char* data = nullptr;
    size_t bytes = 0;
  };
  Region plain_[2], shared_[2], gpu_[2];
};

// A call on this rank, step by step, so that it can be one of a group or of a stream. Of an arena
// it has the memory for itself while it lives.
class Performance {
 public:
  // Fills the buffers. `rank` and `arena` outlive this.
  Performance(world::Rank& rank, Arena& arena, const Call& call);
  Performance(Performance&& from) noexcept;
  ~Performance();
  // Throws world::Failed when the library returns an error.
  void make();
  // What was made is over: notes what is wrong with the result, the guards round the buffers or the
  // send buffer.
  void check();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All steps: makes the call on this rank and checks the result, the guards round the buffers and
// the send buffer. Throws world::Failed when the library returns an error.
void perform(world::Rank& rank, Arena& arena, const Call& call);

}  // namespace matrix
