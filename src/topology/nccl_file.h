// NCCL's topology file (NCCL_TOPO_FILE, NCCL_TOPO_DUMP_FILE) as plain values: which PCI devices
// hang below which NUMA node, and behind which bridges.
//
// What NCCL's own reader does with the file is its documentation; elements and attributes that say
// nothing about places (rank, gdr, guid, c2c, ...) are not kept.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"
#include "src/topology/nvlink.h"
#include "src/topology/topology.h"

namespace libcomm {

// <nic><net name= speed=/></nic>
struct NcclNet {
  std::string name;
  double gbytes_per_second = 0;  // 0: not said
};

// <pci busid= class= link_speed= link_width=>
struct NcclPci {
  std::string address;  // "0000:81:00.0", whatever the spelling in the file
  bool is_bridge = false;
  DeviceKind kind = DeviceKind::kOther;  // of what is no bridge; kOther where nothing is said
  double gbytes_per_second = 0;          // 0: not said
  std::vector<NcclNet> nets;
  GpuNvlinks nvlinks;  // of a GPU; no links: nothing is said of them
  std::vector<NcclPci> children;
};

// <cpu numaid=>
struct NcclCpu {
  int numa_node = -1;  // -1: not known
  std::vector<NcclNet> nets;
  std::vector<NcclPci> children;
};

struct NcclFile {
  std::vector<NcclCpu> cpus;  // at least one; no address comes twice
};

// kInvalidArgument says the line, the element, the value and what would be right. `label` names the
// file in the log. kSystem when libcomm was built without pugixml.
Result<NcclFile> parse_nccl_file(const std::string& text, const std::string& label);

// "0000:81:00.0" from any spelling of a PCI address: upper case, a longer domain, none, no
// function. Empty when it is none.
std::string normal_pci_address(std::string_view text);

// GB/s (1e9 bytes) of a PCIe link, by the lanes' rate as sysfs and NCCL write it ("16 GT/s", "16.0
// GT/s PCIe"). 0 when the text says nothing.
double pcie_gbytes_per_second(std::string_view rate, std::string_view width);

}  // namespace libcomm
