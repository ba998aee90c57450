// Kernels of the 8-bit floats e4m3 and e5m2, combined in fp32 and rounded once.
#include "src/reduce/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/reduce/fp8_kernels.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once per instruction set.
#include <hwy/highway.h>

#include "src/reduce/kernels.h"
#include "src/reduce/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {

const KernelSet& choose_fp8_kernels(DataType type) {
  static const KernelSet e4m3 = float_kernel_set<Float8e4m3>();
  static const KernelSet e5m2 = float_kernel_set<Float8e5m2>();
  return type == DataType::kFloat8e4m3 ? e4m3 : e5m2;
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace libcomm {

HWY_EXPORT(choose_fp8_kernels);

const KernelSet& fp8_kernels(DataType type) {
  return HWY_DYNAMIC_DISPATCH(choose_fp8_kernels)(type);
}

}  // namespace libcomm
#endif  // HWY_ONCE
