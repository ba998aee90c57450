#include "src/topology/path_model.h"

#include <algorithm>
#include <iterator>

namespace libcomm {
namespace {

constexpr bool in_class_order() {
  for (size_t i = 0; i < std::size(kPathModels); ++i)
    if (kPathModels[i].path != static_cast<PathClass>(i)) return false;
  return std::size(kPathModels) == static_cast<size_t>(PathClass::kNetwork) + 1;
}
static_assert(in_class_order(), "kPathModels has one row per PathClass, in its order");

const PathModel& row(PathClass path) { return kPathModels[static_cast<size_t>(path)]; }

// What one end can take: a core copies, a device moves data at the speed of its link.
double end_gbs(const Device& device, const PathModel& model) {
  if (device.kind == DeviceKind::kCore) return model.dma_gbs;
  if (device.gbytes_per_second > 0) return std::min(device.gbytes_per_second, model.dma_gbs);
  // A device without an address is software (veth, a bridge): cores copy for it.
  return device.address.empty() ? model.core_gbs : std::min(kUnknownPcieGbs, model.dma_gbs);
}

}  // namespace

const char* name_of(PathClass path) {
  switch (path) {
    case PathClass::kSelf:
      return "self";
    case PathClass::kCache:
      return "cache";
    case PathClass::kNuma:
      return "numa";
    case PathClass::kNvlink:
      return "nvlink";
    case PathClass::kPcieSwitch:
      return "switch";
    case PathClass::kRoot:
      return "root";
    case PathClass::kSocket:
      return "socket";
    case PathClass::kSystem:
      return "system";
    case PathClass::kNetwork:
      return "network";
  }
  return "unknown";
}

Path model_of(PathClass path) { return {path, row(path).latency_us, row(path).core_gbs}; }

Path priced(PathClass path, const Device& a, const Device& b) {
  Path result = model_of(path);
  const bool core_a = a.kind == DeviceKind::kCore;
  const bool core_b = b.kind == DeviceKind::kCore;
  if (core_a && core_b) return result;
  result.latency_us += kDeviceEndLatencyUs * ((core_a ? 0 : 1) + (core_b ? 0 : 1));
  result.gbytes_per_second = path == PathClass::kNvlink
                                 ? row(path).dma_gbs
                                 : std::min(end_gbs(a, row(path)), end_gbs(b, row(path)));
  return result;
}

}  // namespace libcomm
