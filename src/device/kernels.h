// Kernels: the library's kernels, loaded into a context, and how they are launched.
//
// What they compute is in src/device/kernels; tests without a GPU run the same step code through
// the double of the driver.
#pragma once

#include <memory>

#include "src/base/status.h"
#include "src/device/driver.h"
#include "src/device/kernels/arguments.h"
#include "src/device/kernels/execute_arguments.h"

namespace libcomm::cuda {

class Kernels {
 public:
  // Those of `context`, loaded when nobody holds them yet (milliseconds, and device memory for the
  // code), and unloaded when the last one lets go: a communicator holds them while it lives, and so
  // does a graph that launches them. Load them when a communicator is made, not in the middle of
  // work: loading and unloading may wait for what runs in the context. Both are legal while a
  // stream of the program captures, in whatever mode. Any thread; leaves the current context as it
  // was.
  static Result<std::shared_ptr<const Kernels>> of(const Driver& driver, CUcontext context);

  // Not from a callback of the driver, which may not call it.
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  // Queues the reduction, or the copies, in `stream`, one launch each; none for no bytes. At most
  // `max_ctas` blocks (at least 1). Any thread in which the context is current; legal in capture.
  // Errors: kInvalidArgument for what the comments in arguments.h forbid as far as it can be seen
  // here, kUnhandledCuda from the driver.
  Status reduce(const ReduceArguments& arguments, int max_ctas, CUstream stream) const;
  Status copy(const CopyArguments& arguments, int max_ctas, CUstream stream) const;

  // The same, with arguments that are at `where` when the kernel begins: in pinned memory, valid,
  // and not changed while it runs, except the count to zero (then blocks that begin later do
  // nothing). The grid is for so many bytes of each array, or of each of so many segments.
  Status reduce_later(DataType type, size_t bytes, const ReduceArguments* where, int max_ctas,
                      CUstream stream) const;
  Status copy_later(int segments, size_t bytes, const CopyArguments* where, int max_ctas,
                    CUstream stream) const;

  // Runs a program, a block for each of its lanes. It waits for the ranks' other launches, so that
  // these must be able to run beside it.
  Status execute(const ExecuteArguments& arguments, CUstream stream) const;

  // What fills this GPU: more blocks of a kernel make nothing faster.
  int useful_ctas() const { return useful_ctas_; }

 private:
  Kernels(const Driver& driver, CUcontext context) : driver_(driver), context_(context) {}
  Status load();
  Status launch(CUfunction kernel, size_t tiles, size_t threads, int max_ctas, CUstream stream,
                const void* arguments, const char* what) const;

  const Driver& driver_;
  CUcontext context_;
  CUmodule module_ = nullptr;
  CUfunction reduce_[kNumDataTypes] = {};
  CUfunction late_reduce_[kNumDataTypes] = {};
  CUfunction execute_[kNumDataTypes] = {};
  CUfunction copy_ = nullptr;
  CUfunction late_copy_ = nullptr;
  int useful_ctas_ = 0;
};

}  // namespace libcomm::cuda
