// NVLinks of GPUs, as whoever knows of them tells: a topology file in NCCL's format (nccl_merge.h)
// or NVML (nvml.h).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "src/topology/topology_data.h"

namespace libcomm {

// NVLinks of a GPU that lead to one place.
struct Nvlinks {
  std::string gpu;         // the address of the GPU at the other end; empty: there is none
  bool to_switch = false;  // to the NVSwitches, or may be, where there is no such GPU
  int links = 1;
};

// What is known of the NVLinks of one GPU.
struct GpuNvlinks {
  double link_gbs = 0;  // GB/s (1e9 bytes) of each link in one direction; 0: not known
  std::vector<Nvlinks> links;
};

// By the address of a GPU: all that its teller knows.
using NvlinksOfGpus = std::map<std::string, GpuNvlinks>;

// GB/s of one NVLink in one direction, of GPUs of this compute capability (as "sm" numbers: 90 is
// 9.0); 0 where that is not known. By NVIDIA's data sheets: the whole GPU's bandwidth, which they
// give for both directions together, by its number of links.
double nvlink_gbs_of(int sm);

// Notes them at the GPUs among `devices`. Who tells first counts: nothing changes for GPUs of which
// another has told before, links to them included.
void add_nvlinks(const NvlinksOfGpus& told, const std::vector<Device>& devices,
                 std::vector<Attachment>* attachments);

}  // namespace libcomm
