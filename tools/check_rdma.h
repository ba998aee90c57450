// `comm-check rdma`.
#pragma once

#include <string_view>
#include <vector>

namespace libcomm {

// Returns the exit status: 0 RDMA works between all ranks, 1 something is wrong, 2 wrong usage.
int check_rdma(const std::vector<std::string_view>& arguments);

}  // namespace libcomm
