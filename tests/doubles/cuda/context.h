// Context: the primary context of one GPU. The current one is a stack per thread.
#pragma once

#include <atomic>
#include <set>
#include <vector>

#include "tests/doubles/cuda/stream.h"

namespace libcomm::cuda::doubled {

inline constexpr int kMostDevices = 8;

struct Context {
  bool active() const { return retained > 0; }

  int ordinal = 0;
  int retained = 0;
  bool was_active = false;
  // Not kSuccess: what every later call returns; nothing that is queued runs any more.
  std::atomic<CUresult> sticky{kSuccess};
  std::set<int> peers;             // GPUs whose memory it may touch
  StreamRef legacy;                // the default stream
  std::vector<StreamRef> streams;  // all that may have work, those of graphs and threads included
};

// The top of this thread's stack; null: none.
Context* current_context();
// In the child of a fork.
void forget_contexts();

}  // namespace libcomm::cuda::doubled
