// AlgorithmChoice: which algorithm a collective uses: what COMM_ALGO says, or what suits size and
// group.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"
#include "src/schedule/schedule.h"

namespace libcomm {

struct GroupShape;

class AlgorithmChoice {
 public:
  // "ring" for all collectives, or "allreduce:ring;allgather:hd". An unknown collective or
  // algorithm is kInvalidArgument; an algorithm that a collective does not have is left out with
  // one INFO line.
  Status parse(std::string_view text);

  // Names to try, best first; the first that supports the request is used. `bytes`: of one block.
  std::vector<const char*> candidates(Collective collective, size_t bytes,
                                      const GroupShape& shape) const;
  // What COMM_ALGO asks of this collective, or "".
  const std::string& forced(Collective collective) const {
    return forced_[static_cast<size_t>(collective)];
  }

 private:
  std::array<std::string, kNumCollectives> forced_;
};

}  // namespace libcomm
