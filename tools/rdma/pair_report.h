// The pairs' results as tables, and in words what is wrong with them.
#pragma once

#include <string>
#include <vector>

#include "tools/rdma/pairs.h"

namespace libcomm {

struct PairReport {
  std::string text;
  std::string remarks;     // lines: what works and should be looked at
  std::string complaints;  // lines; empty: nothing is wrong
};
// `results`: of all ranks, each of its own side.
PairReport report_pairs(const std::vector<PairResult>& results);

}  // namespace libcomm
