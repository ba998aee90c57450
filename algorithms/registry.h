// All algorithms, in the order in which COMM_ALGO's documentation lists them.
#pragma once

#include <span>
#include <string_view>

#include "src/schedule/schedule.h"

namespace libcomm {

std::span<const Algorithm> algorithms();
// nullptr when there is none of that name.
const Algorithm* find_algorithm(std::string_view name);

}  // namespace libcomm
