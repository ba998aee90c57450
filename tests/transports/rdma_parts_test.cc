// The parts of the RDMA transport that need no device: lists of devices, choice of the GID,
// windows, what is read from the wire.
#include <arpa/inet.h>
#include <gtest/gtest.h>

#include "transports/rdma/offer.h"
#include "transports/rdma/options.h"
#include "transports/rdma/proof.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {
namespace {

HcaFilter filter(const char* text) {
  auto parsed = HcaFilter::parse(text);
  EXPECT_TRUE(parsed.is_ok()) << parsed.status().to_string();
  return parsed ? *parsed : HcaFilter();
}

TEST(HcaFilter, TakesPrefixesExactNamesPortsAndExclusions) {
  EXPECT_TRUE(filter("").accepts("mlx5_0", 1));
  EXPECT_TRUE(filter("mlx5").accepts("mlx5_0", 2));
  EXPECT_FALSE(filter("mlx5").accepts("rxe0", 1));
  EXPECT_TRUE(filter("mlx5_1:2,rxe").accepts("mlx5_1", 2));
  EXPECT_FALSE(filter("mlx5_1:2,rxe").accepts("mlx5_1", 1));
  EXPECT_TRUE(filter("=mlx5_1").accepts("mlx5_1", 1));
  EXPECT_FALSE(filter("=mlx5_1").accepts("mlx5_10", 1));
  EXPECT_FALSE(filter("^mlx5_1").accepts("mlx5_10", 1));
  EXPECT_TRUE(filter("^=mlx5_1").accepts("mlx5_10", 1));
  EXPECT_FALSE(filter("^=mlx5_1:1").accepts("mlx5_1", 1));
  EXPECT_TRUE(filter("^=mlx5_1:1").accepts("mlx5_1", 2));
}

TEST(HcaFilter, RefusesWhatIsNoList) {
  for (const char* text :
       {"^", "=", "^^a", "a:", "a:0", "a:256", "a:x", "a:1x", ",a", "a,,b", ":1"})
    EXPECT_EQ(HcaFilter::parse(text).status().code(), Code::kInvalidArgument) << text;
}

ibv_gid gid(const char* address) {
  ibv_gid made{};
  const std::string mapped = std::string("::ffff:") + address;
  if (::inet_pton(AF_INET6, mapped.c_str(), made.raw) != 1)
    ::inet_pton(AF_INET6, address, made.raw);
  return made;
}

std::vector<GidEntry> usual_table() {
  return {{0, gid("fe80::1"), 1},  {1, gid("fe80::1"), 2},     {2, gid("10.1.0.5"), 1},
          {3, gid("10.1.0.5"), 2}, {4, gid("192.168.7.7"), 2}, {5, gid("fd00::5"), 2}};
}

int chosen(const GidWish& wish) {
  const auto entry = choose_gid(usual_table(), wish);
  return entry ? entry->index : -1;
}

AddressRange range(const char* text) {
  auto parsed = AddressRange::parse(text);
  EXPECT_TRUE(parsed.is_ok()) << parsed.status().to_string();
  return parsed ? *parsed : AddressRange();
}

TEST(Gid, ThatOfRoceV2OverIpv4IsChosenFirst) {
  EXPECT_EQ(chosen({}), 3);
  EXPECT_EQ(chosen({.roce_version = 1}), 2);
  EXPECT_EQ(chosen({.v4 = false, .insists_on_family = true}), 5) << "rather than link-local";
  EXPECT_EQ(chosen({.range = range("192.168.0.0/16")}), 4);
  EXPECT_EQ(chosen({.range = range("10.1.0.4/30")}), 3);
  EXPECT_EQ(chosen({.range = range("10.1.0.0/30")}), -1);
  EXPECT_EQ(chosen({.v4 = false, .range = range("fd00::/8")}), 5);
  EXPECT_EQ(chosen({.roce_version = 1, .v4 = false, .insists_on_family = true}), 0);
}

TEST(Gid, OtherFamilyWhenNobodyInsists) {
  const std::vector<GidEntry> only_v6 = {{0, gid("fe80::1"), 2}, {1, gid("fd00::5"), 2}};
  EXPECT_EQ(choose_gid(only_v6, {})->index, 1);
  EXPECT_FALSE(choose_gid(only_v6, {.insists_on_family = true}).has_value());
}

TEST(Gid, RangesAreRead) {
  for (const char* text : {"10.1.0.0/33", "10.1.0/8", "x", "/8", "10.0.0.0/", "fd00::/129"})
    EXPECT_EQ(AddressRange::parse(text).status().code(), Code::kInvalidArgument) << text;
  EXPECT_TRUE(range("10.1.2.3").holds(gid("10.1.2.3")));
  EXPECT_FALSE(range("10.1.2.3").holds(gid("10.1.2.2")));
  EXPECT_FALSE(range("0.0.0.0/0").holds(gid("fd00::1"))) << "a range of IPv4";
}

TEST(Window, FollowsTheSpeedOfThePortUnlessItIsGiven) {
  const Window automatic = *Window::parse("auto");
  EXPECT_EQ(automatic.slots_for(1), 4);
  EXPECT_EQ(automatic.slots_for(100), 4);
  EXPECT_EQ(automatic.slots_for(400), 16);
  EXPECT_EQ(automatic.slots_for(4000), 16);
  const Window given = *Window::parse("8x512K");
  EXPECT_EQ(given.slots_for(1), 8);
  EXPECT_EQ(given.slot_bytes, size_t{512} << 10);
}

TEST(Wire, ImmediatesSurviveTheirEncodingAndTheEndOfTheirNumbers) {
  const Immediate sent{Immediate::kArrival, 63, 0x1234567};
  const Immediate read = Immediate::decode(sent.encode());
  EXPECT_EQ(read.kind, Immediate::kArrival);
  EXPECT_EQ(read.part, 63u);
  EXPECT_EQ(read.sequence, 0x234567u);
  EXPECT_EQ(Immediate::decode(Immediate{Immediate::kFilled, 0, 1}.encode()).kind,
            Immediate::kFilled);
  for (const uint64_t from : {uint64_t{0}, uint64_t{0xfffffe}, uint64_t{0x5000000fff}}) {
    for (const int64_t ahead : {-5, -1, 0, 1, 15}) {
      const Immediate at{
          Immediate::kGrant, 0,
          static_cast<uint32_t>(from + static_cast<uint64_t>(ahead)) & Immediate::kSequenceMask};
      EXPECT_EQ(at.distance(from), ahead);
    }
  }
}

TEST(Wire, ArrivalsAreCheckedFieldByField) {
  ArrivalHeader good;
  good.sequence = 7;
  good.bytes = 100;
  EXPECT_TRUE(check_arrival(good, 7, 1 << 16, 3).is_ok());
  const auto refused = [](ArrivalHeader header, const char* part) {
    const Status status = check_arrival(header, 7, 1 << 16, 3);
    EXPECT_EQ(status.code(), Code::kRemote);
    EXPECT_EQ(status.peer(), 3);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  };
  ArrivalHeader bad = good;
  bad.magic = 0;
  refused(bad, "no segment header");
  bad = good;
  bad.version = 9;
  refused(bad, "version 9");
  bad = good;
  bad.sequence = 8;
  refused(bad, "segment 8 where segment 7 is due");
  bad = good;
  bad.kind = ArrivalKind{9};
  refused(bad, "unknown kind 9");
  bad = good;
  bad.bytes = kSmallBytes + 1;
  refused(bad, "at most");
  bad.kind = ArrivalKind::kLarge;
  EXPECT_TRUE(check_arrival(bad, 7, 1 << 16, 3).is_ok());
  bad.bytes = (1 << 16) + 1;
  refused(bad, "65537 bytes");
  bad = good;
  bad.parts = 0;
  refused(bad, "0 parts");
}

TEST(Wire, GrantsAreCheckedFieldByField) {
  GrantEntry good;
  good.flags = kGrantsMemory;
  good.rails = 2;
  EXPECT_TRUE(check_grant(good, 0, 2, 3).is_ok());
  EXPECT_NE(check_grant(good, 1, 2, 3).message().find("entry 0 where 1"), std::string::npos);
  EXPECT_NE(check_grant(good, 0, 1, 3).message().find("2 rails"), std::string::npos);
  good.magic = 1;
  EXPECT_NE(check_grant(good, 0, 2, 3).message().find("no grant"), std::string::npos);
}

TEST(Wire, EndsThatDoNotFitNameWhatDiffers) {
  EndWire mine;
  mine.rails = mine.qps_per_rail = 1;
  mine.segment_bytes = 4096;
  mine.rail[0].mtu = IBV_MTU_4096;
  EXPECT_TRUE(check_end(mine, mine, 3).is_ok());
  EndWire theirs = mine;
  theirs.qps_per_rail = 4;
  EXPECT_NE(check_end(theirs, mine, 3).message().find("queue pairs per rail 4"), std::string::npos);
  theirs = mine;
  theirs.segment_bytes = 8192;
  EXPECT_NE(check_end(theirs, mine, 3).message().find("8192"), std::string::npos);
  theirs = mine;
  theirs.rail[0].mtu = 77;
  EXPECT_NE(check_end(theirs, mine, 3).message().find("MTU"), std::string::npos);
}

TEST(Wire, QueuePairsThatCannotBeAreRefused) {
  EndWire mine;
  mine.rails = mine.qps_per_rail = 1;
  mine.rail[0].mtu = IBV_MTU_4096;
  EndWire theirs = mine;
  theirs.qp[1].number = 1 << 24;
  EXPECT_EQ(check_end(theirs, mine, 3).code(), Code::kRemote);
  RebuildWire good;
  good.qp = {5, 6};
  good.rail.mtu = IBV_MTU_1024;
  good.rail.link_layer = IBV_LINK_LAYER_ETHERNET;
  EXPECT_TRUE(check_rebuild(good, true, 3).is_ok());
  EXPECT_EQ(check_rebuild(good, false, 3).peer(), 3) << "another link layer";
  RebuildWire bad = good;
  bad.rail.mtu = 0;
  EXPECT_FALSE(check_rebuild(bad, true, 3).is_ok());
  bad = good;
  bad.qp.number = 0;
  EXPECT_FALSE(check_rebuild(bad, true, 3).is_ok());
}

TEST(Offer, RanksOfAnotherVersionOfferNothing) {
  RankOffer offer;
  offer.rails = 2;
  offer.link_layer[0] = offer.link_layer[1] = IBV_LINK_LAYER_ETHERNET;
  std::string text;
  EXPECT_EQ(read_offer(write_offer(offer, "two ports"), &text).rails, 2);
  EXPECT_EQ(text, "two ports");
  offer.version = 9;
  EXPECT_EQ(read_offer(write_offer(offer, ""), &text).rails, 0);
  EXPECT_NE(text.find("version 9"), std::string::npos);
  EXPECT_EQ(read_offer("short", &text).rails, 0);
}

TEST(Offer, APairUsesTheRailsThatBothHaveInOneKind) {
  RankOffer two, three, mixed;
  two.rails = 2;
  three.rails = 3;
  mixed.rails = 3;
  for (int i = 0; i < 3; ++i) {
    two.link_layer[i] = three.link_layer[i] = IBV_LINK_LAYER_ETHERNET;
    mixed.link_layer[i] = i == 0 ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND;
  }
  EXPECT_EQ(common_rails(two, three), 2);
  EXPECT_EQ(common_rails(three, mixed), 1);
  EXPECT_EQ(common_rails(three, {}), 0);
}

TEST(Proof, EveryRankTriesTheNextThatItHasRailsWith) {
  std::vector<RankOffer> offers(5);
  for (const size_t rank : {0u, 2u, 3u}) {
    offers[rank].rails = 1;
    offers[rank].link_layer[0] = IBV_LINK_LAYER_ETHERNET;
  }
  EXPECT_EQ(proof_partner(offers, 0), 2);
  EXPECT_EQ(proof_partner(offers, 2), 3);
  EXPECT_EQ(proof_partner(offers, 3), 0);
  EXPECT_EQ(proof_partner(offers, 1), -1);
  offers[2].link_layer[0] = IBV_LINK_LAYER_INFINIBAND;
  EXPECT_EQ(proof_partner(offers, 0), 3);
  EXPECT_EQ(proof_partner(offers, 2), -1);
}

}  // namespace
}  // namespace libcomm::rdma
