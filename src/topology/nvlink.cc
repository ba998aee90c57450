#include "src/topology/nvlink.h"

namespace libcomm {

void add_nvlinks(const NvlinksOfGpus& told, const std::vector<Device>& devices,
                 std::vector<Attachment>* attachments) {
  std::map<std::string, int> gpus;
  for (const Device& device : devices)
    if (device.kind == DeviceKind::kGpu) gpus.emplace(device.address, device.id);
  std::vector<bool> told_before;
  for (const Attachment& at : *attachments) told_before.push_back(at.nvlinks_known);
  for (const auto& [address, all_links] : told) {
    const auto self = gpus.find(address);
    if (self == gpus.end() || told_before[static_cast<size_t>(self->second)]) continue;
    Attachment& at = (*attachments)[static_cast<size_t>(self->second)];
    at.nvlinks_known = true;
    for (const Nvlinks& nvlinks : all_links) {
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
