// `comm-check rdma` of a build without libibverbs' headers.
#include <cstdio>

#include "tools/check_rdma.h"

namespace libcomm {

int check_rdma(const std::vector<std::string_view>& /*arguments*/) {
  std::fprintf(stderr,
               "comm-check rdma: this libcomm was built without RDMA: install libibverbs-dev and "
               "build it again\n");
  return 1;
}

}  // namespace libcomm
