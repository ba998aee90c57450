// Scopes: a CUDA context that is current for a while, and a while in which a thread may make calls
// that would break another thread's capture of a graph.
#pragma once

#include "src/device/driver.h"

namespace libcomm::cuda {

// Makes `context` current in this thread. Not to be used when status() is a failure.
class ContextScope {
 public:
  ContextScope(const Driver& driver, CUcontext context)
      : driver_(driver), pushed_(driver.context_push(context)) {}
  ~ContextScope() {
    CUcontext popped = nullptr;
    if (pushed_ == kSuccess) (void)driver_.context_pop(&popped);
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  Status status() const { return driver_.check(pushed_, "cuCtxPushCurrent"); }

 private:
  const Driver& driver_;
  const CUresult pushed_;
};

// Allocations and queries of this thread are no part of what streams capture meanwhile.
class OutsideCapture {
 public:
  explicit OutsideCapture(const Driver& driver) : driver_(driver) {
    (void)driver.capture_mode(&mode_);
  }
  ~OutsideCapture() { (void)driver_.capture_mode(&mode_); }
  OutsideCapture(const OutsideCapture&) = delete;
  OutsideCapture& operator=(const OutsideCapture&) = delete;

 private:
  const Driver& driver_;
  int mode_ = kCaptureRelaxed;  // then what it was before
};

}  // namespace libcomm::cuda
