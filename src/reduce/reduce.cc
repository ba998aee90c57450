#include "src/reduce/reduce.h"

#include "src/reduce/kernels.h"

namespace libcomm {

namespace {

const KernelSet& kernels_of(DataType type) {
  switch (type) {
    case DataType::kFloat32:
    case DataType::kFloat64:
      return float_kernels(type);
    case DataType::kFloat16:
    case DataType::kBfloat16:
      return half_kernels(type);
    case DataType::kFloat8e4m3:
    case DataType::kFloat8e5m2:
      return fp8_kernels(type);
    default:
      return integer_kernels(type);
  }
}

}  // namespace

ReduceKernel find_reduce_kernel(DataType type, ReduceOp op) {
  return kernels_of(type).reduce[static_cast<size_t>(op)];
}

void scale_elements(void* dst, const void* src, size_t count, DataType type, const void* scalar) {
  kernels_of(type).scale(dst, src, count, scalar);
}

void copy_source(const ReduceArgs& args, size_t element_size) {
  const void* source = args.sources[0];
  const size_t bytes = args.count * element_size;
  if (args.dst2 != nullptr && args.dst2 != source) {
    copy_bytes(args.dst2, source, bytes, args.stream_dst2);
  }
  if (args.dst != source) copy_bytes(args.dst, source, bytes, args.stream_dst);
}

}  // namespace libcomm
