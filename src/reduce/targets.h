// Which instruction sets the kernels are compiled for: AVX-512, AVX2, SSE4 and plain scalar code on
// x86, NEON on Arm. Included before any Highway header, by the tests too, so that all agree on the
// set.
//
// Left out: SSSE3 (no machine of interest stops there; the scalar code serves it) and the targets
// with vectors of unknown length, whose vectors cannot be members of a struct as the kernels need.
#pragma once

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
