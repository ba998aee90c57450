// What an operator wants to know of one host before any rank talks to another: may this process use
// the devices, lock memory, and which ports work.
#pragma once

#include <string>

#include "src/base/knobs.h"

namespace libcomm {

struct HostReport {
  std::string text;        // lines, each indented by two
  bool usable = false;     // some port works
  std::string complaints;  // lines that say what is wrong and what to do; empty: nothing is
};
HostReport report_rdma_host(const Knobs& knobs);

}  // namespace libcomm
