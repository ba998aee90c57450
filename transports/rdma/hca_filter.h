// HcaFilter: COMM_IB_HCA, which ports of which devices to use.
//
// "mlx5_0,rxe" are name prefixes, "=mlx5_0:1" exact names (here also a port), "^mlx5_1" everything
// but. Empty means every port.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"

namespace libcomm::rdma {

class HcaFilter {
 public:
  // kInvalidArgument names what cannot be read.
  static Result<HcaFilter> parse(std::string_view text);
  bool accepts(std::string_view device, int port) const;
  bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    std::string name;
    int port = -1;  // any
  };
  bool exact_ = false;
  bool excludes_ = false;
  std::vector<Entry> entries_;
};

}  // namespace libcomm::rdma
