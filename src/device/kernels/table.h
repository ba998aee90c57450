// The names of the kernels: libcomm_reduce_<type> for every element type, and libcomm_copy. Each
// also as libcomm_late_..., whose argument is where the arguments are when the kernel begins. And
// libcomm_execute_<type>, the executor (execute_arguments.h).
#pragma once

namespace libcomm::cuda {

// The largest block that the kernels are compiled for.
inline constexpr unsigned kMaxThreads = 512;

}  // namespace libcomm::cuda

// ROW(name of the type, its format in formats.h), in the order of DataType's values.
#define COMM_REDUCE_KERNELS(ROW) \
  ROW(int8, Integer<int8_t>)     \
  ROW(uint8, Integer<uint8_t>)   \
  ROW(int32, Integer<int32_t>)   \
  ROW(uint32, Integer<uint32_t>) \
  ROW(int64, Integer<int64_t>)   \
  ROW(uint64, Integer<uint64_t>) \
  ROW(float16, Float16)          \
  ROW(float32, Float32)          \
  ROW(float64, Float64)          \
  ROW(bfloat16, Bfloat16)        \
  ROW(float8e4m3, Float8e4m3)    \
  ROW(float8e5m2, Float8e5m2)
