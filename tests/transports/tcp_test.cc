// What only the TCP transport does: what its knobs change, what it holds, how channels come about.
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/transports/pump.h"
#include "tests/transports/tcp_world.h"

namespace libcomm::test {
namespace {

Link open(TcpWorld& world, int from = 0, int lane = 0) {
  return open_link(world.transport(from), world.transport(1 - from), from, 1 - from, lane);
}

// The helper threads of this process. One that has been joined is still listed for a moment: the
// kernel wakes who joins it before it takes it away.
int helper_threads() {
  int count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");  // not there any more: the thread has gone
    std::string name;
    std::getline(file, name);
    count += name.starts_with("comm-tcp-");
  }
  return count;
}

TEST(Tcp, CutsSegmentsByBuffsize) {
  EXPECT_EQ(TcpWorld(Settings{}).transport(0).segment_bytes(), size_t{256} << 10);
  EXPECT_EQ(TcpWorld(Settings{{"BUFFSIZE", "4K"}}).transport(0).segment_bytes(), 1024u);
  EXPECT_EQ(TcpWorld(Settings{{"BUFFSIZE", "5000"}}).transport(0).segment_bytes(), 1216u);
  EXPECT_EQ(TcpWorld(Settings{{"BUFFSIZE", "64M"}}).transport(0).segment_bytes(), size_t{1} << 20);
}

TEST(Tcp, OpensAsManySocketsAsTheKnobsSay) {
  TcpWorld world(Settings{{"NSOCKS_PERTHREAD", "3"}});
  EXPECT_EQ(world.transport(0).stats().sockets, 0);
  Link link = open(world);
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kInto, numbered(1), pattern(9, 1)));
  EXPECT_EQ(world.transport(0).stats().sockets, 3);
  EXPECT_EQ(world.transport(1).stats().sockets, 3);
  EXPECT_EQ(world.transport(0).stats().threads, 0);
  link = {};
  EXPECT_EQ(world.transport(0).stats().sockets, 0);
}

TEST(Tcp, MovesBytesWithHelperThreadsWhenAskedTo) {
  ASSERT_TRUE(until([] { return helper_threads() == 0; })) << "those of other tests have ended";
  {
    TcpWorld world(Settings{{"SOCKET_NTHREADS", "2"}, {"NSOCKS_PERTHREAD", "2"}});
    EXPECT_EQ(helper_threads(), 0) << "no channel, no thread";
    Link link = open(world);
    // Nobody calls the receiver, yet the segments leave the sender: its helpers do it.
    ASSERT_TRUE(try_send(*link.send, SendWay::kSlot, numbered(1), nullptr, 0));
    ASSERT_TRUE(try_send(*link.send, SendWay::kSlot, numbered(2), nullptr, 0));
    ASSERT_TRUE(until([&] { return completed(*link.send) == 2; }));
    ASSERT_TRUE(until([&] { return try_receive(*link.recv, RecvWay::kPeek, numbered(1), {}); }));
    ASSERT_TRUE(until([&] { return try_receive(*link.recv, RecvWay::kPeek, numbered(2), {}); }));
    EXPECT_EQ(world.transport(0).stats().sockets, 4);
    EXPECT_EQ(world.transport(0).stats().threads, 2);
    EXPECT_TRUE(until([] { return helper_threads() == 4; })) << "two ranks in this process";
    EXPECT_EQ(link.send->capabilities() & kDirectSend, 0u);
    EXPECT_EQ(link.recv->capabilities() & kDirectRecv, 0u);
  }
  EXPECT_TRUE(until([] { return helper_threads() == 0; }));
}

TEST(Tcp, HoldsNoStagingMemoryForDirectTraffic) {
  TcpWorld world(Settings{});
  Link link = open(world);
  const size_t segment = link.send->segment_bytes();
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kInto, numbered(1), pattern(segment, 1)));
  EXPECT_EQ(world.transport(0).stats().host_bytes, 0u);
  EXPECT_LT(world.transport(1).stats().host_bytes, segment) << "the read-ahead buffer only";

  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kPeek, numbered(2), pattern(segment, 2)));
  EXPECT_EQ(world.transport(0).stats().host_bytes, size_t{1} << 20) << "COMM_BUFFSIZE";
  EXPECT_GE(world.transport(1).stats().host_bytes, segment);
  link = {};
  EXPECT_EQ(world.transport(0).stats().host_bytes, 0u);
  EXPECT_EQ(world.transport(1).stats().host_bytes, 0u);
}

TEST(Tcp, AcceptsBeforeThePeerConnects) {
  TcpWorld world(Settings{{"NSOCKS_PERTHREAD", "2"}});
  auto accepted = world.transport(1).accept(0, 5);
  ASSERT_TRUE(accepted.is_ok());
  Link link;
  link.recv = std::move(*accepted);
  Segment segment;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(link.recv->peek(&segment).is_ok());
    EXPECT_FALSE(segment.ready);
  }
  EXPECT_EQ(link.recv->wait_handle().fd, -1);
  auto connected = world.transport(0).connect(1, 5);
  ASSERT_TRUE(connected.is_ok());
  link.send = std::move(*connected);
  EXPECT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(1), pattern(64, 1)));
}

TEST(Tcp, ReopensAChannelThatWasClosed) {
  TcpWorld world(Settings{});
  for (uint64_t i = 1; i <= 3; ++i) {
    Link link = open(world);
    ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kInto, numbered(i), pattern(64, i)));
  }
}

TEST(Tcp, RefusesAPeerThatIsNotThereAndALaneBeyondTheWireFormat) {
  TcpWorld world(Settings{});
  EXPECT_EQ(world.transport(0).connect(0, 0).status().code(), Code::kInternal);
  EXPECT_EQ(world.transport(0).connect(2, 0).status().code(), Code::kInternal);
  EXPECT_EQ(world.transport(0).accept(-1, 0).status().code(), Code::kInternal);
  EXPECT_EQ(world.transport(0).connect(1, 4096).status().code(), Code::kInternal);
}

TEST(Tcp, ForgetsNothingThatWasCommittedBeyondWhatTheKernelTook) {
  TcpWorld world(Settings{{"BUFFSIZE", "4M"}});
  Link link = open(world);
  const Bytes data = pattern(link.send->segment_bytes(), 1);
  uint64_t sent = 0;
  while (sent < 64 && try_send(*link.send, SendWay::kSlot, numbered(1), data.data(), data.size()))
    ++sent;
  // Not all of it has left, and the channel says so: there is no reader.
  EXPECT_LT(completed(*link.send), sent);
  EXPECT_TRUE(link.send->wait_handle().for_write);
  EXPECT_GE(link.send->wait_handle().fd, 0);
  for (uint64_t i = 0; i < sent; ++i) {
    ASSERT_TRUE(until([&] {
      completed(*link.send);
      return try_receive(*link.recv, RecvWay::kPeek, numbered(1), data);
    }));
  }
  EXPECT_EQ(completed(*link.send), sent);
  EXPECT_EQ(link.send->wait_handle().fd, -1) << "nothing to wait for";
}

}  // namespace
}  // namespace libcomm::test
