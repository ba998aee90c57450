// What the kernels must compute, in plain scalar code that shares nothing with them: small floats
// are decoded with ldexp and rounded by searching the table of all values of the type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/reduce/reduce.h"

namespace libcomm::reference {

using Bytes = std::vector<uint8_t>;

// One element as its bits, in the low bytes.
uint64_t load(const void* array, size_t index, DataType type);
void store(void* array, size_t index, DataType type, uint64_t bits);

// The value of a float type's bits.
double decode(DataType type, uint64_t bits);
// The bits of a value, rounded to nearest even; any NaN gives the one NaN of the type. fp32 and
// small floats: `value` is an fp32 value.
uint64_t encode(DataType type, double value);
bool is_nan(DataType type, uint64_t bits);
uint64_t canonical_nan(DataType type);

// One element: sources folded from first to last, then the division, then one rounding.
uint64_t reduce(DataType type, ReduceOp op, const std::vector<uint64_t>& sources, int divisor);
uint64_t scale(DataType type, uint64_t element, uint64_t scalar);

// Every (type, operator) that is defined.
void for_each_kernel(const std::function<void(DataType, ReduceOp)>& visit);
std::vector<DataType> all_types();
// Runs `body` once per instruction set of this machine, with that one chosen.
void for_each_target(const std::function<void(const std::string& name)>& body);

// Elements with random bits (many NaN and huge values), or, when `tame`, small numbers whose sums
// and products mostly stay finite.
Bytes random_elements(DataType type, size_t count, bool tame, uint64_t seed);

}  // namespace libcomm::reference
