// Addresses: texts, interface selection, wire form.
#include "src/bootstrap/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>

namespace libcomm {
namespace {

SocketAddress v4(const char* text, uint16_t port = 0) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  inet_pton(AF_INET, text, &in.sin_addr);
  return SocketAddress::from(reinterpret_cast<sockaddr*>(&in)).with_port(port);
}
SocketAddress v6(const char* text, uint16_t port = 0) {
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  inet_pton(AF_INET6, text, &in.sin6_addr);
  return SocketAddress::from(reinterpret_cast<sockaddr*>(&in)).with_port(port);
}

TEST(Address, PrintsIpv6InBracketsBeforeAPort) {
  EXPECT_EQ(v4("10.1.2.3", 47).to_string(), "10.1.2.3:47");
  EXPECT_EQ(v6("fd00::2", 47).to_string(), "[fd00::2]:47");
  EXPECT_EQ(v6("fd00::2").to_string(), "fd00::2");
}

TEST(Address, SurvivesTheWire) {
  for (const SocketAddress& address : {v4("10.1.2.3", 65535), v6("fd00::1:2", 1)})
    EXPECT_EQ(AddressWire::from(address).decode(), address);
}

TEST(Address, RefusesImpossibleWireForms) {
  AddressWire wire = AddressWire::from(v4("10.1.2.3", 47));
  wire.family = 5;
  EXPECT_FALSE(wire.decode().valid());
  EndpointWire endpoint = EndpointWire::from({v4("10.1.2.3", 47)});
  endpoint.count = 5;
  Endpoint decoded;
  EXPECT_FALSE(endpoint.decode(&decoded));
  endpoint.count = 2;  // the second is all zeros
  EXPECT_FALSE(endpoint.decode(&decoded));
}

TEST(InterfaceFilter, TakesPrefixesExactNamesAndExclusions) {
  EXPECT_TRUE(interface_matches("", "eth0"));
  EXPECT_TRUE(interface_matches("eth", "eth0"));
  EXPECT_TRUE(interface_matches("ib,eth", "eth0"));
  EXPECT_FALSE(interface_matches("ib", "eth0"));
  EXPECT_FALSE(interface_matches("=eth", "eth0"));
  EXPECT_TRUE(interface_matches("=eth0", "eth0"));
  EXPECT_FALSE(interface_matches("^docker,lo", "lo"));
  EXPECT_TRUE(interface_matches("^docker,lo", "eth0"));
  EXPECT_TRUE(interface_matches("^=eth", "eth0"));
  EXPECT_FALSE(interface_matches("^=eth0", "eth0"));
}

const std::vector<Interface> kMachine = {{"lo", {v4("127.0.0.1"), v6("::1")}},
                                         {"docker0", {v4("172.17.0.1")}},
                                         {"eth0", {v4("10.0.0.1"), v6("fd00::1")}},
                                         {"ib0", {v4("10.1.0.1")}}};

TEST(InterfaceChoice, PrefersRealInterfacesAndOneAddressOfEach) {
  auto chosen = choose_addresses(kMachine, "");
  ASSERT_TRUE(chosen);
  EXPECT_EQ(*chosen, (Endpoint{v4("10.0.0.1"), v4("10.1.0.1"), v6("fd00::1")}));
}

TEST(InterfaceChoice, FallsBackToBridgesAndThenToLoopback) {
  auto bridge = choose_addresses({kMachine[0], kMachine[1]}, "");
  ASSERT_TRUE(bridge);
  EXPECT_EQ(*bridge, Endpoint{v4("172.17.0.1")});
  auto loopback = choose_addresses({kMachine[0]}, "");
  ASSERT_TRUE(loopback);
  EXPECT_EQ(loopback->front(), v4("127.0.0.1"));
}

TEST(InterfaceChoice, NamesWhatThereIsWhenTheFilterMatchesNothing) {
  const auto chosen = choose_addresses(kMachine, "eth9");
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.status().code(), Code::kSystem);
  EXPECT_EQ(
      chosen.status().message(),
      "COMM_SOCKET_IFNAME=eth9 matches none of: lo, docker0, eth0, ib0; set it to the start of "
      "one of these names (=name for exactly this one, ^name for all others), or unset it");
}

TEST(HostPort, IsParsedStrictly) {
  const auto good = resolve_host_port("127.0.0.1:47", AF_UNSPEC, "COMM_ID");
  ASSERT_TRUE(good) << good.status().message();
  EXPECT_EQ(good->front(), v4("127.0.0.1", 47));
  const auto six = resolve_host_port("[::1]:48", AF_UNSPEC, "COMM_ID");
  ASSERT_TRUE(six);
  EXPECT_EQ(six->front(), v6("::1", 48));
  for (const char* bad :
       {"", "host", ":47", "host:", "host:0", "host:65536", "host:4x", "::1:47", "[::1:47"})
    EXPECT_EQ(resolve_host_port(bad, AF_UNSPEC, "COMM_ID").status().code(), Code::kInvalidArgument)
        << bad;
}

}  // namespace
}  // namespace libcomm
