#include "transports/rdma/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "transports/rdma/wire.h"

namespace libcomm::rdma {

Result<Window> Window::parse(std::string_view text) {
  Window window;
  if (text == "auto" || text.empty()) return window;
  const size_t x = text.find('x');
  uint64_t bytes = 0;
  const char* begin = text.data();
  const char* end = begin + std::min(x, text.size());
  const auto [stop, err] = std::from_chars(begin, end, window.slots);
  if (x == std::string_view::npos || err != std::errc() || stop != end || window.slots < 1 ||
      window.slots > 64 || !parse_size(text.substr(x + 1), &bytes) || bytes < (4 << 10) ||
      bytes > (16 << 20)) {
    return error(Code::kInvalidArgument,
                 "COMM_RDMA_WINDOW={}: it is auto, or 1 to 64 slots of 4K to 16M, such as 8x512K",
                 text);
  }
  window.slot_bytes = static_cast<size_t>(bytes) / 64 * 64;  // no element is cut
  return window;
}

int Window::slots_for(double gbits_per_second) const {
  if (!automatic()) return slots;
  constexpr double kRoundTrip = 20e-6;
  const double in_flight = gbits_per_second * 1e9 / 8 * kRoundTrip;
  const double wanted = 2 * in_flight / static_cast<double>(slot_bytes);
  return std::clamp(static_cast<int>(std::ceil(wanted)), 4, 16);
}

namespace {

// At most 4 MiB are pinned for a peer, unless the user asks for a window. Each end of a channel has
// its rings and one slot; what is left with both ends of channels on eight lanes, and of those of
// point-to-point messages, may be used by whoever needs it.
size_t extra_slots(const Window& window) {
  if (!window.automatic()) return SIZE_MAX;
  constexpr size_t kLimit = 4 << 20, kEnds = 2 * (8 + 1), kPage = 4096;
  constexpr size_t kGrantRing = (kGrants * sizeof(GrantEntry) + kPage - 1) / kPage * kPage;
  const size_t least = kEnds * (kArrivals * kEntryBytes + kGrantRing + window.slot_bytes);
  return kLimit > least ? kLimit - least : 0;
}

}  // namespace

Result<Options> Options::from(const Knobs& knobs) {
  Options options;
  const auto number = [&](Knob knob) { return static_cast<int>(knobs.get_int(knob)); };
  COMM_ASSIGN(options.hca, HcaFilter::parse(knobs.get_string(Knob::kIbHca)));
  options.gid.index = number(Knob::kIbGidIndex);
  options.gid.roce_version = number(Knob::kIbRoceVersionNum);
  options.gid.v4 = knobs.get_choice(Knob::kIbAddrFamily) == 0;
  options.gid.insists_on_family = knobs.is_set(Knob::kIbAddrFamily);
  COMM_ASSIGN(options.gid.range, AddressRange::parse(knobs.get_string(Knob::kIbAddrRange)));
  options.timeout = number(Knob::kIbTimeout);
  options.retry_count = number(Knob::kIbRetryCnt);
  options.service_level = number(Knob::kIbSl);
  options.traffic_class = number(Knob::kIbTc);
  const int cts = number(Knob::kIbFifoTc);
  options.cts_traffic_class = cts >= 0 ? cts : options.traffic_class;
  options.pkey_index = number(Knob::kIbPkey);
  options.qps_per_rail = number(Knob::kIbQpsPerConnection);
  options.split = knobs.get_bool(Knob::kIbSplitDataOnQps);
  options.relaxed_ordering = number(Knob::kIbPciRelaxedOrdering) != 0;
  options.ece = knobs.get_bool(Knob::kIbEceEnable);
  COMM_ASSIGN(options.window, Window::parse(knobs.get_string(Knob::kRdmaWindow)));
  options.extra_slot_bytes = extra_slots(options.window);
  // The topology does not tell one switch from several.
  static constexpr struct {
    const char* name;
    PathClass farthest;
  } kLevels[] = {{"LOC", PathClass::kSelf},
                 {"PIX", PathClass::kPcieSwitch},
                 {"PXB", PathClass::kPcieSwitch},
                 {"PHB", PathClass::kRoot},
                 {"SYS", PathClass::kNetwork}};
  const auto& level = kLevels[knobs.get_choice(Knob::kNetGdrLevel)];
  options.gdr = {number(Knob::kIbCudaSupport), level.farthest, level.name,
                 knobs.get_bool(Knob::kNetGdrRead), TopologyFile::from(knobs)};
  options.pin_limit = knobs.get_size(Knob::kRdmaPinLimit);
  return options;
}

}  // namespace libcomm::rdma
