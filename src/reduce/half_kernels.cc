// Kernels of fp16 and bf16, combined in fp32 and rounded once.
#include "src/reduce/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/reduce/half_kernels.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once per instruction set.
#include <hwy/highway.h>

#include "src/reduce/kernels.h"
#include "src/reduce/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {

const KernelSet& choose_half_kernels(DataType type) {
  static const KernelSet fp16 = float_kernel_set<Float16>();
  static const KernelSet bf16 = float_kernel_set<Bfloat16>();
  return type == DataType::kFloat16 ? fp16 : bf16;
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace libcomm {

HWY_EXPORT(choose_half_kernels);

const KernelSet& half_kernels(DataType type) {
  return HWY_DYNAMIC_DISPATCH(choose_half_kernels)(type);
}

}  // namespace libcomm
#endif  // HWY_ONCE
