// Stands for nccl_file.cc where pugixml was not found at build time.
#include "src/topology/nccl_file.h"

namespace libcomm {

Result<NcclFile> parse_nccl_file(const std::string&, const std::string&) {
  return error(Code::kSystem,
               "a topology in NCCL's format, but libcomm was built without pugixml: install "
               "libpugixml-dev and build again, or give a file that `lstopo FILE.xml` wrote");
}

}  // namespace libcomm
