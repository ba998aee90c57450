// Offer: what every rank tells all others about its RDMA ports when a communicator is made, and
// what follows from that for each pair, the same on every rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/base/status.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {

struct RankOffer {
  uint32_t version = kWireVersion;
  uint16_t rails = 0;  // 0: none
  uint8_t fatal = 0;   // this rank's settings make no sense: the group must not come about
  uint8_t reserved = 0;
  uint8_t link_layer[kMaxRails] = {};
  uint32_t window_slots = 0;
};
static_assert(sizeof(RankOffer) == 16);

// The struct followed by a text for people: the ports, or why there are none.
std::string write_offer(const RankOffer& offer, const std::string& text);
// A rank of another version, or one that sends something else, offers nothing.
RankOffer read_offer(std::string_view wire, std::string* text);

// How many rails the two have in common: the first of each that have the same link layer.
int common_rails(const RankOffer& a, const RankOffer& b);

}  // namespace libcomm::rdma
