// Element types and operators, with the values of the C API.
#pragma once

#include <cstddef>
#include <cstdint>

namespace libcomm {

// Values equal commDataType_t's.
enum class DataType : uint8_t {
  kInt8 = 0,
  kUint8 = 1,
  kInt32 = 2,
  kUint32 = 3,
  kInt64 = 4,
  kUint64 = 5,
  kFloat16 = 6,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9,
  kFloat8e4m3 = 10,
  kFloat8e5m2 = 11,
};
inline constexpr int kNumDataTypes = 12;

// Operators as the kernels know them. An average is kSum with a division in the last step, or a
// multiplication in the first where the type's range is small; commRedOpCreatePreMulSum is kSum
// after a multiplication of the input.
enum class ReduceOp : uint8_t { kSum, kProd, kMax, kMin, kBand, kBor, kBxor };
inline constexpr int kNumReduceOps = 7;

constexpr size_t size_of(DataType type) {
  constexpr uint8_t kSizes[kNumDataTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return kSizes[static_cast<size_t>(type)];
}
const char* name_of(DataType type);
const char* name_of(ReduceOp op);
bool is_integer(DataType type);
// False for a bitwise operator on a float type.
bool is_defined(ReduceOp op, DataType type);

}  // namespace libcomm
