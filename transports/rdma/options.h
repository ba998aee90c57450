// What the knobs say to the RDMA transport.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "src/base/knobs.h"
#include "src/topology/topology.h"
#include "transports/rdma/gid.h"
#include "transports/rdma/hca_filter.h"

namespace libcomm::rdma {

// COMM_RDMA_WINDOW.
struct Window {
  int slots = 0;  // 0: from the port's speed
  size_t slot_bytes = 128 << 10;
  bool automatic() const { return slots == 0; }

  // "auto" or "8x512K": 1 to 64 slots of 4K to 16M. kInvalidArgument names the text.
  static Result<Window> parse(std::string_view text);
  // The slots that keep a port of this speed busy: twice the bandwidth-delay product, at a round
  // trip of 20 us between NICs of one cluster, as slots in flight and slots being emptied; 4 to 16.
  int slots_for(double gbits_per_second) const;
};

// When GPU memory is used in place.
struct GdrOptions {
  int support = -1;  // COMM_IB_CUDA_SUPPORT
  PathClass level = PathClass::kPcieSwitch;
  const char* level_name = "PXB";
  bool read = true;
  TopologyFile topology = {};  // where the distance is looked up
};

struct Options {
  HcaFilter hca;
  GidWish gid;
  int timeout = 20;
  int retry_count = 7;
  int service_level = 0;
  int traffic_class = 0;
  int cts_traffic_class = 0;
  int pkey_index = 0;
  int qps_per_rail = 1;
  bool split = false;
  bool relaxed_ordering = true;
  bool ece = true;
  Window window;
  // Slots beyond the first of each end of a channel, for all channels with one peer together.
  size_t extra_slot_bytes = 0;
  // Of plain memory, registered at a time.
  size_t pin_limit = 0;
  GdrOptions gdr;

  static Result<Options> from(const Knobs& knobs);
};

}  // namespace libcomm::rdma
