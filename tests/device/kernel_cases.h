// What kernels must do, whatever runs them: checks that fail with GoogleTest.
#pragma once

#include <vector>

#include "tests/device/machine.h"

namespace libcomm::cuda::test {

// Every type, operator, number of sources, division and scaled source, in and out of place, one and
// several destinations, aligned and not: the bits of src/reduce, and nothing else written.
// `counts`: elements of the arrays.
void check_reductions(Machine& machine, DataType type, const std::vector<size_t>& counts);

// As many sources and destinations as one launch takes.
void check_most_arrays(Machine& machine);

// Every value of the 8- and 16-bit floats, in pairs where there are few enough: the bits of
// src/reduce, which its own tests compare with plain code.
void check_small_floats(Machine& machine);
// The edges of fp32 and fp64: NaN, infinities, zeros of two signs, subnormals, overflow.
void check_special_values(Machine& machine);

// Segments of many sizes and alignments, in place ones and empty ones too.
void check_copies(Machine& machine);

}  // namespace libcomm::cuda::test
