// CPU lists: "0-3,8" as taskset, cpusets and COMM_CPU_AFFINITY write them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"

namespace libcomm {

// Numbers above this are refused: no kernel numbers so many CPUs, and "0-4000000000" must not
// allocate.
inline constexpr int kMaxCpuNumber = 65535;

// The numbers in the order written, repeats kept. kInvalidArgument names the part that is no
// number, an empty part, a range that runs backwards or a number above kMaxCpuNumber; also a list
// that names more than kMaxCpuNumber + 1 CPUs in all.
Result<std::vector<int>> parse_cpu_list(std::string_view text);

// "0-3,8" from any order; repeats once. "" for an empty set.
std::string format_cpu_list(std::span<const int> cpus);

}  // namespace libcomm
