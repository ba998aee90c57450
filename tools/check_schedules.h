// `comm-check schedules`.
#pragma once

#include <string_view>
#include <vector>

namespace libcomm {

// Returns the exit status: 0 all proved, 1 a counter-example was found, 2 wrong usage.
int check_schedules(const std::vector<std::string_view>& arguments);

}  // namespace libcomm
