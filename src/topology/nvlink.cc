#include "src/topology/nvlink.h"

namespace libcomm {

double nvlink_gbs_of(int sm) {
  if (sm < 60) return 0;
  if (sm < 70) return 20;                   // P100: 4 links, 160 GB/s
  if (sm >= 86 && sm < 90) return 14.0625;  // RTX A6000: 4 links of half the width, 112.5 GB/s
  if (sm < 100) return 25;                  // V100, A100, H100: 6, 12, 18 links, 300 to 900 GB/s
  return 50;                                // B200: 18 links, 1800 GB/s
}

void add_nvlinks(const NvlinksOfGpus& told, const std::vector<Device>& devices,
                 std::vector<Attachment>* attachments) {
  std::map<std::string, int> gpus;
  for (const Device& device : devices)
    if (device.kind == DeviceKind::kGpu) gpus.emplace(device.address, device.id);
  std::vector<bool> told_before;
  for (const Attachment& at : *attachments) told_before.push_back(at.nvlinks_known);
  for (const auto& [address, nvlinks_of] : told) {
    const auto self = gpus.find(address);
    if (self == gpus.end() || told_before[static_cast<size_t>(self->second)]) continue;
    Attachment& at = (*attachments)[static_cast<size_t>(self->second)];
    at.nvlinks_known = true;
    at.nvlink_gbs = nvlinks_of.link_gbs;
    for (const Nvlinks& nvlinks : nvlinks_of.links) {
      const auto other = gpus.find(nvlinks.gpu);
      if (nvlinks.links <= 0 || other == self) continue;
      if (other == gpus.end())
        at.switch_links += nvlinks.to_switch ? nvlinks.links : 0;
      else if (!told_before[static_cast<size_t>(other->second)])
        at.nvlinks[other->second] += nvlinks.links;
    }
  }
}

}  // namespace libcomm
