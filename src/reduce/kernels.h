// The kernels by family of types, one source file each: what find_reduce_kernel and scale_elements
// choose from. Each function picks the instruction set on its first call and is a table look-up
// afterwards.
#pragma once

#include "src/reduce/reduce.h"

namespace libcomm {

// dst[i] = src[i] * *scalar, count elements.
using ScaleKernel = void (*)(void* dst, const void* src, size_t count, const void* scalar);

struct KernelSet {
  ReduceKernel reduce[kNumReduceOps] = {};  // null where the operator is not defined
  ScaleKernel scale = nullptr;
};

const KernelSet& integer_kernels(DataType type);
const KernelSet& float_kernels(DataType type);  // fp32, fp64
const KernelSet& half_kernels(DataType type);   // fp16, bf16
const KernelSet& fp8_kernels(DataType type);    // e4m3, e5m2

// The result of one source without a division: its bits.
void copy_source(const ReduceArgs& args, size_t element_size);

}  // namespace libcomm
