// What a host can read of its network's flow control without other programs, and what that says in
// words: explicit congestion notification, priority flow control, pauses, packets that were lost or
// came out of order.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace libcomm {

struct FabricReadings {
  using Counters = std::map<std::string, uint64_t>;
  // By priority; empty when the driver does not say. `notifies`: packets that a switch has marked
  // make this port tell their sender. `reacts`: a sender here that is told slows down.
  std::map<int, bool> notifies, reacts;
  std::optional<uint8_t> lossless;  // priorities with PFC, as bits (pfc.h)
  Counters port;                    // of the RDMA port
  Counters link;                    // of its network device
};

// `sysfs` is /sys; `interface` may be empty: it is not known.
FabricReadings read_fabric(const std::string& sysfs, const std::string& device, int port,
                           const std::string& interface);
// The driver's own counters of a network device, as `ethtool -S` shows them; none when it has none.
FabricReadings::Counters driver_counters(const std::string& interface);

// A counter of pause frames. Drivers name them differently: tx_prio3_pause,
// rx_pfc_ena_frames_pri3, tx_priority_3_xoff.nic, rx_pause_ctrl_phy.
struct PauseCounter {
  bool sent = false;  // by this port; else received
  int priority = -1;  // -1: all traffic at once
};
std::optional<PauseCounter> as_pause_counter(std::string_view name);

struct FabricHints {
  std::vector<std::string> seen;   // what there is to see
  std::vector<std::string> wrong;  // what is wrong, or looks so, and what to do
};
FabricHints explain_fabric(const FabricReadings& readings, const std::string& interface);

}  // namespace libcomm
