// Event: a place in a stream, or in the capture of one.
#pragma once

#include <memory>
#include <vector>

#include "tests/doubles/cuda/stream.h"

namespace libcomm::cuda::doubled {

struct Event {
  Context* context = nullptr;
  Mark mark;                         // without a stream: never recorded, or in a capture
  std::shared_ptr<Capture> capture;  // that it was recorded in last
  std::vector<size_t> nodes;
};
using EventRef = std::shared_ptr<Event>;

}  // namespace libcomm::cuda::doubled
