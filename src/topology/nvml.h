// NVML, the library of NVIDIA's driver that tells of its GPUs: which NVLinks work, where to,
// and how fast they are.
//
// It is opened at run time, by declarations of our own, and closed again when it has told. Its
// calls are those of NVIDIA's "NVML API Reference Guide". No machine with NVML has run this yet:
// tests use a double of it (tests/doubles/nvml).
#pragma once

#include <string>
#include <vector>

#include "src/topology/nvlink.h"

namespace libcomm {

// The active NVLinks of the GPUs at these PCI addresses. A GPU of which NVML does not tell, or not
// all, is not in it, and an INFO line says why; where there is no NVML, none is. May take as long
// as starting the GPUs' driver takes, and start a process (nvidia-modprobe): for callers without a
// lock. Any thread.
NvlinksOfGpus read_nvlinks(const std::vector<std::string>& gpus);

}  // namespace libcomm
