// What of libcomm works on this machine: each transport with the reason when it does not, and each
// way to be launched.
#pragma once

#include <string>
#include <vector>

#include "src/base/knobs.h"

namespace libcomm {

struct Finding {
  std::string name;
  bool available = false;
  std::string detail;  // what was found, or why it is not available and what helps
};

Finding find_rdma(const Knobs& knobs);
// Loads and initialises the CUDA driver, which the library itself never does.
Finding find_cuda();
// Tries each transport's means for real: makes and maps shared memory, lists interfaces.
std::vector<Finding> find_transports(const Knobs& knobs);
// Launchers: what this process was started by, and whether PMIx could be spoken.
std::vector<Finding> find_launchers();

}  // namespace libcomm
