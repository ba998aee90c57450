// Gid: which entry of a port's GID table to use.
//
// On Ethernet a GID stands for an IP address and a RoCE version. The one wanted by default is RoCE
// v2 over IPv4: it is routed by IP and is there wherever the interface has an address.
#pragma once

#include <infiniband/verbs.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "src/base/status.h"

namespace libcomm::rdma {

struct GidEntry {
  int index = 0;
  ibv_gid gid{};
  int roce_version = 0;  // 0: InfiniBand
};

// A network such as 10.1.0.0/16; bits == 0 takes any address.
struct AddressRange {
  bool v4 = true;
  unsigned char address[16] = {};  // as in a GID: an IPv4 address is the last four bytes
  int bits = 0;                    // of the 128
  // kInvalidArgument names the text.
  static Result<AddressRange> parse(std::string_view text);
  bool holds(const ibv_gid& gid) const;
};

struct GidWish {
  int index = -1;  // COMM_IB_GID_INDEX
  int roce_version = 2;
  bool v4 = true;
  bool insists_on_family = false;  // COMM_IB_ADDR_FAMILY was set
  AddressRange range = {};
};

bool is_ipv4(const ibv_gid& gid);        // ::ffff:a.b.c.d
bool is_link_local(const ibv_gid& gid);  // fe80::
bool is_zero(const ibv_gid& gid);
// "10.0.0.1" or "fe80::1".
std::string to_text(const ibv_gid& gid);

// The entry to use of an Ethernet port: version, family and range as wished, an address that is
// routed rather than a link-local one, the lowest index; the other family when nobody insists. None
// when there is no such entry.
std::optional<GidEntry> choose_gid(std::span<const GidEntry> table, const GidWish& wish);

}  // namespace libcomm::rdma
