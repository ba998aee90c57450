// Elements: test data for every type, and plain reference results in double or 64-bit integers.
//
// Data of floats is chosen so that every result is exact in any order of reduction, even in 8 bits:
// for each element at most three ranks of nine push the sum (or the product's exponent) up and at
// most three down. Integers are random bits, since their arithmetic wraps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm.h"

namespace elements {

// Operators as the tests name them; kPreMulSum is made for its communicator.
enum class Op { kSum, kProd, kMax, kMin, kAvg, kPreMulSum, kBand, kBor, kBxor };
inline constexpr int kNumOps = 9;
const char* name_of(Op op);
const char* name_of(commDataType_t type);

bool is_float(commDataType_t type);
bool is_defined(Op op, commDataType_t type);
size_t size_of(commDataType_t type);

uint64_t hash(uint64_t a, uint64_t b);

// Bits of element `index` of rank `rank` in the call that `seed` names.
uint64_t input_bits(commDataType_t type, Op op, uint64_t seed, int rank, size_t index);
// Rank's factor of kPreMulSum, as bits of the type: 1 or -1.
uint64_t factor_bits(commDataType_t type, int rank);

// Whether `bits` is op over all ranks of element `index`.
bool is_reduced(uint64_t bits, commDataType_t type, Op op, uint64_t seed, int nranks, size_t index);

// For messages.
double value_of(uint64_t bits, commDataType_t type);

}  // namespace elements
