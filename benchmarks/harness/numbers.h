// Element types and operators as the benchmarks name them, and plain conversions to and from the
// narrow floats. The conversions share no code with the library: they are what its results are
// checked against, so they are written for clarity (double arithmetic, one rounding) and not speed.
#pragma once

#include <comm.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace bench {

struct TypeInfo {
  commDataType_t type;
  const char* name;  // as nccl-tests prints it and -d accepts it
  size_t size;       // bytes
  bool is_float;
  bool is_signed;
  // Floats: bits of the significand (the hidden one included), exponent of the smallest normal
  // value and of the largest finite one. Integers: 0.
  int precision;
  int min_exponent;
  int max_exponent;
};

const TypeInfo& type_info(commDataType_t type);
// All types in the order of commDataType_t.
std::span<const TypeInfo> all_types();
// Accepts nccl-tests' names and the usual short ones: fp16, f32, bf16, e4m3, char, ...
std::optional<commDataType_t> find_type(std::string_view name);

enum class Op { kSum, kProd, kMax, kMin, kAvg, kMulSum, kBand, kBor, kBxor };

const char* name_of(Op op);
std::optional<Op> find_op(std::string_view name);
// Bitwise operators are for integers.
bool is_defined(Op op, const TypeInfo& type);

// The value of a float of this type, given its bits. Every value of every type is a double.
double decode_float(const TypeInfo& type, uint64_t bits);
// The bits of the value nearest to x, ties to even. Overflow gives infinity; e4m3 has none and
// gives NaN above 464, as the OCP 8-bit specification's non-saturating mode does.
uint64_t encode_float(const TypeInfo& type, double x);
// The distance from |x| to the next larger value of the type; x finite.
double unit_in_last_place(const TypeInfo& type, double x);

}  // namespace bench
