// The path model: what each class of path costs, as constants in one table.
//
// They are for ranking choices, not for predicting a machine: round figures of current two-socket
// servers, monotone in the class. The sources, line by line:
//  - PCIe: 1, 2, 4, 8, 16, 32 GT/s lanes at 8b/10b or 128b/130b give 15.75, 31.5 and 63 GB/s for
//  x16 of
//    generations 3, 4 and 5; a link whose speed is known counts with that.
//  - A copy by one core is bounded by the lines that it can have in flight, about 12 to 16 of 64
//  bytes,
//    over the latency of the place that they come from.
//  - A core's latency is that of handing over one cache line, twice (flag there, data back).
//  - Between processors, DMA crosses their links (UPI, xGMI, Infinity Fabric): about 20 GB/s for
//  one flow.
//  - NVLink goes past the processors: 25 GB/s of each link (generations 2 to 4), where nobody says
//  of which generation it is (nvlink.h).
//  - Each device end adds the trip over PCIe: about half a microsecond.
// docs/topology.md holds the table for readers.
#pragma once

#include "src/topology/topology.h"

namespace libcomm {

struct PathModel {
  PathClass path;
  double latency_us;  // one way, without what the ends add
  double core_gbs;    // GB/s (1e9 bytes) when a core does the copying
  double dma_gbs;     // most that one device's DMA gets, when its own link is faster; of NVLink:
                      // of each link, whatever the PCIe links
};

// In the order of PathClass.
inline constexpr PathModel kPathModels[] = {
    {PathClass::kSelf, 0.00, 40.0, 63.0},       {PathClass::kCache, 0.10, 20.0, 63.0},
    {PathClass::kNuma, 0.15, 16.0, 63.0},       {PathClass::kNvlink, 0.18, 16.0, 25.0},
    {PathClass::kPcieSwitch, 0.20, 16.0, 63.0}, {PathClass::kRoot, 0.30, 14.0, 50.0},
    {PathClass::kSocket, 0.35, 12.0, 40.0},     {PathClass::kSystem, 0.60, 8.0, 20.0},
    {PathClass::kNetwork, 5.00, 1.25, 1.25},
};
inline constexpr double kDeviceEndLatencyUs = 0.5;
inline constexpr double kUnknownPcieGbs = 15.75;  // generation 3, x16

// The path of class `path` between two devices; of NVLink: of one link.
Path priced(PathClass path, const Device& a, const Device& b);

}  // namespace libcomm
