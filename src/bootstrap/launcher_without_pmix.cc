// Stands for launcher_pmix.cc where pmix.h was not found at build time.
#include "src/bootstrap/launcher.h"

namespace libcomm {

LauncherAnswer ask_pmix(const Knobs&) {
  const auto name = environment("PMIX_NAMESPACE");
  // Another launcher's variables may still tell.
  if (!name.has_value() || environment("PMI_RANK").has_value() ||
      environment("SLURM_STEP_NODELIST").has_value())
    return std::optional<LauncherInfo>();
  return error(
      Code::kSystem,
      "this process was started through PMIx (PMIX_NAMESPACE={}), but libcomm was built without "
      "pmix.h: install libpmix-dev and build again, or set COMM_RANK, COMM_NRANKS and COMM_ID",
      *name);
}

}  // namespace libcomm
