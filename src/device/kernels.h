// Kernels: the library's kernels, loaded into a context, and how they are launched.
//
// What they compute is in src/device/kernels; tests without a GPU run the same step code through
// the double of the driver.
#pragma once

#include "src/base/status.h"
#include "src/device/driver.h"
#include "src/device/kernels/arguments.h"

namespace libcomm::cuda {

class Kernels {
 public:
  // Those of `context`, which the first call for it loads (milliseconds, and device memory for the
  // code); they stay until the process ends. Load them when a communicator is made, not in the
  // middle of work: loading may wait for what runs in the context. It is legal while a stream of
  // the program captures, in whatever mode. Any thread; leaves the current context as it was. Not
  // for a context that was destroyed and made anew at the same address.
  static Result<const Kernels*> of(const Driver& driver, CUcontext context);

  // Queues the reduction, or the copies, in `stream`, one launch each; none for no bytes. At most
  // `max_ctas` blocks (at least 1). Any thread in which the context is current; legal in capture.
  // Errors: kInvalidArgument for what the comments in arguments.h forbid as far as it can be seen
  // here, kUnhandledCuda from the driver.
  Status reduce(const ReduceArguments& arguments, int max_ctas, CUstream stream) const;
  Status copy(const CopyArguments& arguments, int max_ctas, CUstream stream) const;

  // What fills this GPU: more blocks of a kernel make nothing faster.
  int useful_ctas() const { return useful_ctas_; }

 private:
  explicit Kernels(const Driver& driver) : driver_(driver) {}
  Status load();
  Status launch(CUfunction kernel, size_t bytes, int max_ctas, CUstream stream,
                const void* arguments, const char* what) const;

  const Driver& driver_;
  CUfunction reduce_[kNumDataTypes] = {};
  CUfunction copy_ = nullptr;
  int useful_ctas_ = 0;
};

}  // namespace libcomm::cuda
