#include "transports/rdma/offer.h"

#include <algorithm>
#include <cstring>

namespace libcomm::rdma {

std::string write_offer(const RankOffer& offer, const std::string& text) {
  std::string wire(sizeof offer, '\0');
  std::memcpy(wire.data(), &offer, sizeof offer);
  return wire + text;
}

RankOffer read_offer(std::string_view wire, std::string* text) {
  RankOffer offer;
  if (wire.size() < sizeof offer) {
    *text = "it offers something that is not readable";
    return {};
  }
  std::memcpy(&offer, wire.data(), sizeof offer);
  *text = std::string(wire.substr(sizeof offer));
  if (offer.version != kWireVersion) {
    *text = fmt::format("it speaks version {} of the RDMA protocol, this rank version {}",
                        offer.version, kWireVersion);
    return {};
  }
  offer.rails = std::min<uint16_t>(offer.rails, kMaxRails);
  return offer;
}

int common_rails(const RankOffer& a, const RankOffer& b) {
  int count = 0;
  while (count < std::min(a.rails, b.rails) && a.link_layer[count] == b.link_layer[count]) ++count;
  return count;
}

}  // namespace libcomm::rdma
