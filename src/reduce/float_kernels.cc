// Kernels of fp32 and fp64, which are combined as they are.
#include "src/reduce/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/reduce/float_kernels.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once per instruction set.
#include <hwy/highway.h>

#include "src/reduce/kernels.h"
#include "src/reduce/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {

const KernelSet& choose_float_kernels(DataType type) {
  static const KernelSet fp32 = float_kernel_set<Native<float>>();
  static const KernelSet fp64 = float_kernel_set<Native<double>>();
  return type == DataType::kFloat32 ? fp32 : fp64;
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace libcomm {

HWY_EXPORT(choose_float_kernels);

const KernelSet& float_kernels(DataType type) {
  return HWY_DYNAMIC_DISPATCH(choose_float_kernels)(type);
}

}  // namespace libcomm
#endif  // HWY_ONCE
