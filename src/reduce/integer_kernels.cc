// Kernels of the six integer types.
//
// Sums, products and bitwise operators wrap, so the unsigned lane of the same size serves both
// signs. The division of an average, which no instruction set has for integers, is a second pass in
// plain code over pieces that stay in the first-level cache.
#include "src/reduce/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/reduce/integer_kernels.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once per instruction set.
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "src/reduce/kernels.h"
#include "src/reduce/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace libcomm {
namespace HWY_NAMESPACE {

// Combines in lanes of L, which may be smaller than T where the operator does not carry; divides as
// T.
template <typename T, typename L, class Op>
void combine_as(ReduceArgs args) {
  args.count *= sizeof(T) / sizeof(L);  // NOLINT(bugprone-sizeof-expression): they may be equal
  reduce_kernel<Native<L>, Op>(args);
}

template <typename T, typename L, class Op>
void integer_kernel(const ReduceArgs& args) {
  if (args.divisor == 1) return combine_as<T, L, Op>(args);

  using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
  constexpr size_t kPiece = 4096 / sizeof(T);
  const Wide divisor = static_cast<Wide>(args.divisor);
  HWY_ALIGN T piece[kPiece];
  for (size_t done = 0; done < args.count; done += kPiece) {
    const size_t count = std::min(kPiece, args.count - done);
    const size_t offset = done * sizeof(T);
    // The first source, then one more at a time: integers do not mind.
    std::memcpy(piece, static_cast<const uint8_t*>(args.sources[0]) + offset, count * sizeof(T));
    for (int s = 1; s < args.source_count; ++s) {
      const void* pair[] = {piece, static_cast<const uint8_t*>(args.sources[s]) + offset};
      combine_as<T, L, Op>({.dst = piece, .sources = pair, .source_count = 2, .count = count});
    }
    for (size_t i = 0; i < count; ++i)
      piece[i] = static_cast<T>(static_cast<Wide>(piece[i]) / divisor);
    std::memcpy(static_cast<uint8_t*>(args.dst) + offset, piece, count * sizeof(T));
    if (args.dst2 != nullptr) {
      std::memcpy(static_cast<uint8_t*>(args.dst2) + offset, piece, count * sizeof(T));
    }
  }
}

template <typename T>
KernelSet integer_kernel_set() {
  using U = std::make_unsigned_t<T>;
  KernelSet set;
  set.reduce[static_cast<int>(ReduceOp::kSum)] = integer_kernel<T, U, Sum>;
  set.reduce[static_cast<int>(ReduceOp::kProd)] = integer_kernel<T, U, Prod>;
  set.reduce[static_cast<int>(ReduceOp::kMax)] = integer_kernel<T, T, Max>;
  set.reduce[static_cast<int>(ReduceOp::kMin)] = integer_kernel<T, T, Min>;
  set.reduce[static_cast<int>(ReduceOp::kBand)] = integer_kernel<T, uint8_t, Band>;
  set.reduce[static_cast<int>(ReduceOp::kBor)] = integer_kernel<T, uint8_t, Bor>;
  set.reduce[static_cast<int>(ReduceOp::kBxor)] = integer_kernel<T, uint8_t, Bxor>;
  set.scale = scale_kernel<Native<U>>;
  return set;
}

const KernelSet& choose_integer_kernels(DataType type) {
  // In the order of DataType's values.
  static const KernelSet sets[] = {
      integer_kernel_set<int8_t>(),   integer_kernel_set<uint8_t>(), integer_kernel_set<int32_t>(),
      integer_kernel_set<uint32_t>(), integer_kernel_set<int64_t>(), integer_kernel_set<uint64_t>(),
  };
  return sets[static_cast<int>(type)];
}

}  // namespace HWY_NAMESPACE
}  // namespace libcomm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace libcomm {

HWY_EXPORT(choose_integer_kernels);

const KernelSet& integer_kernels(DataType type) {
  return HWY_DYNAMIC_DISPATCH(choose_integer_kernels)(type);
}

}  // namespace libcomm
#endif  // HWY_ONCE
