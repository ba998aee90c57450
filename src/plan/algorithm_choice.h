// AlgorithmChoice: what COMM_ALGO says: an algorithm for all collectives, or one for each.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "src/base/status.h"
#include "src/schedule/schedule.h"

namespace libcomm {

class AlgorithmChoice {
 public:
  // "ring" for all collectives, or "allreduce:ring;allgather:hd". An unknown collective or
  // algorithm is kInvalidArgument.
  Status parse(std::string_view text);

  // What COMM_ALGO asks of this collective, or "".
  const std::string& forced(Collective collective) const {
    return forced_[static_cast<size_t>(collective)];
  }

 private:
  std::array<std::string, kNumCollectives> forced_;
};

}  // namespace libcomm
