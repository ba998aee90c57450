#include "transports/rdma/gid.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace libcomm::rdma {
namespace {

constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// Smaller is better; -1: not to be used.
int rank_entry(const GidEntry& entry, const GidWish& wish) {
  if (entry.roce_version != wish.roce_version || is_zero(entry.gid)) return -1;
  if (!wish.range.holds(entry.gid)) return -1;
  const bool family = is_ipv4(entry.gid) == wish.v4;
  if (!family && (wish.insists_on_family || wish.range.bits > 0)) return -1;
  return (family ? 0 : 2) + (is_link_local(entry.gid) ? 1 : 0);
}

}  // namespace

bool is_ipv4(const ibv_gid& gid) { return std::memcmp(gid.raw, kMapped, sizeof kMapped) == 0; }
bool is_link_local(const ibv_gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }
bool is_zero(const ibv_gid& gid) {
  return std::all_of(std::begin(gid.raw), std::end(gid.raw), [](uint8_t b) { return b == 0; });
}

std::string to_text(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_ipv4(gid)) {
    ::inet_ntop(AF_INET, gid.raw + 12, text, sizeof text);
  } else {
    ::inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  }
  return text;
}

Result<AddressRange> AddressRange::parse(std::string_view text) {
  AddressRange range;
  if (text.empty()) return range;
  const auto bad = [&] {
    return error(Code::kInvalidArgument,
                 "COMM_IB_ADDR_RANGE={}: this is no network such as 10.1.0.0/16 or fd00::/8", text);
  };
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  int shift = 0;
  if (::inet_pton(AF_INET, address.c_str(), range.address + 12) == 1) {
    std::memcpy(range.address, kMapped, sizeof kMapped);
    shift = 96;
  } else if (::inet_pton(AF_INET6, address.c_str(), range.address) == 1) {
    range.v4 = false;
  } else {
    return bad();
  }
  range.bits = 128;
  if (slash != std::string_view::npos) {
    const std::string_view number = text.substr(slash + 1);
    int bits = 0;
    const auto [end, err] = std::from_chars(number.data(), number.data() + number.size(), bits);
    if (err != std::errc() || end != number.data() + number.size() || bits < 0 ||
        bits + shift > 128)
      return bad();
    range.bits = bits + shift;
  }
  return range;
}

bool AddressRange::holds(const ibv_gid& gid) const {
  for (int bit = 0; bit < bits; bit += 8) {
    const int width = std::min(8, bits - bit);
    const int mask = 0xff << (8 - width) & 0xff;
    if (((gid.raw[bit / 8] ^ address[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

std::optional<GidEntry> choose_gid(std::span<const GidEntry> table, const GidWish& wish) {
  std::optional<GidEntry> best;
  int best_rank = 0;
  for (const GidEntry& entry : table) {
    const int rank = rank_entry(entry, wish);
    if (rank < 0 || (best && rank >= best_rank)) continue;
    best = entry;
    best_rank = rank;
  }
  return best;
}

}  // namespace libcomm::rdma
