#include "tools/info/machine_report.h"

namespace libcomm {

Finding find_rdma(const Knobs&) {
  return {"rdma", false, "built without the verbs headers (Debian: libibverbs-dev)"};
}

}  // namespace libcomm
