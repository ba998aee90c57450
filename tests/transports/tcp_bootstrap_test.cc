// TCP channels over the real bootstrap: authenticated connections that its monitor threads accept.
#include "tests/bootstrap/support.h"
#include "tests/transports/pump.h"
#include "transports/tcp/transport.h"

namespace libcomm::test {
namespace {

TEST(TcpOverBootstrap, ConnectsEveryPairInBothDirections) {
  constexpr int kRanks = 3;
  const auto knobs = libcomm::testing::knobs_with(
      {{"NSOCKS_PERTHREAD", "2"}, {"SOCKET_IFNAME", "lo"}, {"BUFFSIZE", "64K"}});
  libcomm::testing::ThreadGroup group(kRanks, knobs);
  ASSERT_OK(group.joined());
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < kRanks; ++rank) {
    auto made = make_tcp_transport(group[rank], knobs);
    ASSERT_OK(made.status());
    transports.push_back(*std::move(made));
  }
  std::vector<Link> links;
  for (int from = 0; from < kRanks; ++from) {
    for (int to = 0; to < kRanks; ++to) {
      if (from == to) continue;
      links.push_back(open_link(*transports[static_cast<size_t>(from)],
                                *transports[static_cast<size_t>(to)], from, to, 2));
      ASSERT_NE(links.back().send, nullptr);
      const auto op = static_cast<uint64_t>(links.size());
      ASSERT_TRUE(
          carry(links.back(), SendWay::kPost, RecvWay::kInto, numbered(op), pattern(9, op)));
      ASSERT_TRUE(
          carry(links.back(), SendWay::kSlot, RecvWay::kPeek, numbered(op), pattern(16384, op)));
    }
  }
  for (const auto& transport : transports) {
    EXPECT_EQ(transport->stats().channels, 4) << "two peers, two directions";
    EXPECT_EQ(transport->stats().sockets, 8) << "two sockets each";
  }
}

}  // namespace
}  // namespace libcomm::test
