// What only the RDMA transport does: grants, registered memory, queue pairs, what it holds.
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "tests/transports/rdma_double.h"
#include "tests/transports/rdma_stream.h"
#include "tests/transports/rdma_world.h"

namespace libcomm::test {
namespace {

// User memory as a test lends it and takes it back.
class TestMemory final : public UserMemory {
 public:
  uint64_t lend(void* base, size_t bytes, bool brief = false) {
    ranges_.push_back({++last_, static_cast<std::byte*>(base), bytes, brief});
    return last_;
  }
  void take_back(uint64_t id) {
    std::erase_if(ranges_, [id](const Range& range) { return range.id == id; });
    ++ended_;
  }
  bool find(const void* address, size_t bytes, Range* range) const override {
    const auto* begin = static_cast<const std::byte*>(address);
    for (const Range& each : ranges_) {
      if (begin < each.base || begin + bytes > each.base + each.bytes) continue;
      *range = each;
      return true;
    }
    return false;
  }
  bool is_live(uint64_t id) const override {
    return std::any_of(ranges_.begin(), ranges_.end(), [id](auto& each) { return each.id == id; });
  }
  uint64_t ended() const override { return ended_; }

 private:
  std::vector<Range> ranges_;
  uint64_t last_ = 0, ended_ = 0;
};

class Rdma : public OnRdmaDouble {
 protected:
  static Link open(RdmaWorld& world, int lane = 0) {
    return open_link(world.transport(0), world.transport(1), 0, 1, lane);
  }
  static const rdma::ChannelStatistics& of(RdmaWorld& world, int rank) {
    const auto all = world.rdma(rank).statistics();
    EXPECT_EQ(all.size(), 1u);
    return *all.front();
  }
};

// Receives a message of several segments into one buffer, as the executor does.
bool carry_message(Link& link, const std::byte* src, std::byte* dst, size_t bytes, size_t segment,
                   uint64_t op) {
  size_t sent = 0, received = 0;
  link.recv->expect(numbered(op), dst, bytes, segment);
  return until([&] {
    const size_t next = std::min(segment, bytes - sent);
    if (next > 0 && try_send(*link.send, SendWay::kPost, numbered(op), src + sent, next))
      sent += next;
    completed(*link.send);
    const size_t due = std::min(segment, bytes - received);
    bool done = false;
    if (due > 0) {
      const Status status = link.recv->receive_into(numbered(op), dst + received, due, &done);
      EXPECT_TRUE(status.is_ok()) << status.to_string();
      if (done) received += due;
    }
    return testing::Test::HasFailure() || received == bytes;
  });
}

TEST_F(Rdma, RegisteredMemoryIsSentFromAndReceivedIntoWithoutACopy) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{{"RDMA_WINDOW", "4x16K"}}, memory);
  Link link = open(world);
  // The first message opens the channel; it may use a staging slot.
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kInto, numbered(1), pattern(10, 1)));
  const Bytes src = pattern(110000, 5);
  Bytes dst(src.size());
  const uint64_t lent = memory->lend(const_cast<std::byte*>(src.data()), src.size());
  memory->lend(dst.data(), dst.size());
  ASSERT_TRUE(carry_message(link, src.data(), dst.data(), src.size(), 16384, 2));
  EXPECT_TRUE(dst == src);
  EXPECT_EQ(of(world, 0).direct_segments, 7u) << "six of 16 KiB and the rest";
  EXPECT_EQ(of(world, 1).direct_segments, 7u);
  EXPECT_EQ(of(world, 0).filled_grants, 7u) << "no header travelled with them";
  EXPECT_EQ(of(world, 1).filled_grants, 7u);
  // Taken back, the source is staged again.
  memory->take_back(lent);
  std::fill(dst.begin(), dst.end(), std::byte{0});
  ASSERT_TRUE(carry_message(link, src.data(), dst.data(), src.size(), 16384, 3));
  EXPECT_TRUE(dst == src);
  EXPECT_EQ(of(world, 0).direct_segments, 7u);
  EXPECT_EQ(of(world, 1).direct_segments, 14u);
}

// The statistics of this rank's end that sends, or of the one that receives.
const rdma::ChannelStatistics& end_of(RdmaWorld& world, int rank, bool sends) {
  const auto all = world.rdma(rank).statistics();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& each) { return each->sends == sends; });
  EXPECT_TRUE(found != all.end());
  return **found;
}

// What is released is said by the messages of the other direction.
TEST_F(Rdma, APingPongNeedsNoPacketsButItsMessages) {
  RdmaWorld world(Settings{});
  Link to = open(world), fro = open_link(world.transport(1), world.transport(0), 1, 0, 0);
  constexpr uint64_t kRounds = 100;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const Bytes message = pattern(8, round);
    ASSERT_TRUE(carry(to, SendWay::kPost, RecvWay::kInto, numbered(round), message));
    ASSERT_TRUE(carry(fro, SendWay::kPost, RecvWay::kInto, numbered(round), message));
  }
  for (const int rank : {0, 1}) {
    EXPECT_EQ(end_of(world, rank, false).segments, kRounds);
    EXPECT_EQ(end_of(world, rank, false).entries, 0u);
  }
}

// Answers say so, too, but nobody reads them: the sender still hears what is released.
TEST_F(Rdma, AnswersThatAreNotReadHoldUpNoMessages) {
  RdmaWorld world(Settings{});
  Link to = open(world), fro = open_link(world.transport(1), world.transport(0), 1, 0, 0);
  const Bytes message = pattern(8, 1);
  ASSERT_TRUE(carry(fro, SendWay::kPost, RecvWay::kInto, numbered(1), message));
  for (uint64_t n = 0; n < 200; ++n) {
    ASSERT_TRUE(carry(to, SendWay::kPost, RecvWay::kInto, numbered(n), message)) << n;
    if (n % 20 == 14) {
      ASSERT_TRUE(until(
          [&] { return try_send(*fro.send, SendWay::kPost, numbered(n), message.data(), 8); }));
    }
  }
  EXPECT_GE(end_of(world, 1, false).entries, 200u / 16);
}

TEST_F(Rdma, MemoryThatIsTakenBackIsDeregisteredAtOnce) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  const Bytes src = pattern(50000, 1);
  const uint64_t lent = memory->lend(const_cast<std::byte*>(src.data()), src.size());
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(1), src));
  ASSERT_TRUE(until([&] { return completed(*link.send) == 1; }));
  EXPECT_EQ(double_.regions(src.data(), src.size()), 1);
  memory->take_back(lent);
  world.transport(0).drop_ended_memory();
  EXPECT_EQ(double_.regions(src.data(), src.size()), 0);
}

// The receiver has the segment and leaves before the sender's device has heard that it came.
TEST_F(Rdma, MemoryIsFreeWhenThePeerThatHasItLeavesBeforeTheDeviceKnows) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kInto, numbered(1), pattern(10, 1)));
  ASSERT_TRUE(until([&] { return completed(*link.send) == 1; }));
  const Bytes src = pattern(50000, 1);
  const uint64_t lent = memory->lend(const_cast<std::byte*>(src.data()), src.size());
  // Of the sender's data queue pair, which was made first.
  double_.hold_answers(double_.queue_pairs().front().number);
  bool sent = false;
  ASSERT_TRUE(until([&] {
    if (!sent) sent = try_send(*link.send, SendWay::kPost, numbered(2), src.data(), src.size());
    completed(*link.send);
    return try_receive(*link.recv, RecvWay::kPeek, numbered(2), src);
  }));
  EXPECT_EQ(completed(*link.send), 1u);
  link.recv.reset();
  ASSERT_TRUE(until([&] {
    uint64_t count = 0;
    EXPECT_TRUE(link.send->progress(&count).is_ok());
    return count == 2;
  }));
  memory->take_back(lent);
  world.transport(0).drop_ended_memory();
  EXPECT_EQ(double_.regions(src.data(), src.size()), 0);
}

TEST_F(Rdma, BriefMemoryIsRegisteredUpToItsLimit) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{{"RDMA_PIN_LIMIT", "100000"}}, memory);
  Link link = open(world);
  const Bytes a = pattern(60000, 1), b = pattern(60000, 2), c = pattern(40000, 3);
  const auto lend = [&](const Bytes& bytes, bool brief) {
    return memory->lend(const_cast<std::byte*>(bytes.data()), bytes.size(), brief);
  };
  const auto registered = [&](const Bytes& bytes, uint64_t op) {
    EXPECT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(op), bytes));
    return double_.regions(bytes.data(), bytes.size()) > 0;
  };
  const uint64_t first = lend(a, true);
  lend(b, true);
  lend(c, true);
  EXPECT_TRUE(registered(a, 1));
  EXPECT_FALSE(registered(b, 2)) << "120000 bytes at a time";
  EXPECT_TRUE(registered(c, 3)) << "exactly the limit";
  ASSERT_TRUE(until([&] { return completed(*link.send) == 3; }));
  memory->take_back(first);
  world.transport(0).drop_ended_memory();
  EXPECT_FALSE(registered(a, 4));
  // What the user lends himself does not count.
  lend(b, false);
  EXPECT_TRUE(registered(b, 5));
}

TEST_F(Rdma, RangesMayOverlap) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{{"RDMA_WINDOW", "4x32K"}}, memory);
  Link link = open(world);
  Bytes whole = pattern(100000, 1);
  // A small one that was there first, inside of one that is looked up later.
  memory->lend(whole.data() + 50000, 30000);
  ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(1),
                    Bytes(whole.begin() + 50000, whole.begin() + 80000)));
  const auto send = [&](size_t from, size_t bytes, uint64_t op) {
    const std::vector<std::byte> wanted(whole.begin() + static_cast<ptrdiff_t>(from),
                                        whole.begin() + static_cast<ptrdiff_t>(from + bytes));
    bool sent = false;
    return until([&] {
      if (!sent)
        sent = try_send(*link.send, SendWay::kPost, numbered(op), whole.data() + from, bytes);
      completed(*link.send);
      return try_receive(*link.recv, RecvWay::kPeek, numbered(op), wanted);
    });
  };
  ASSERT_TRUE(send(50000, 30000, 2));
  memory->lend(whole.data(), whole.size());
  const uint64_t before = double_.device("double0").registrations;
  for (uint64_t op = 3; op < 9; ++op)
    ASSERT_TRUE(send(op % 2 == 0 ? 40000 : 70000, 30000, op)) << op;
  ASSERT_TRUE(send(50000, 30000, 9));
  EXPECT_EQ(double_.device("double0").registrations, before + 1) << "looked up, not made again";
}

TEST_F(Rdma, NothingIsReadFromUserMemoryAfterASendIsWithdrawn) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kInto, numbered(1), pattern(10, 1)));
  void* pages =
      ::mmap(nullptr, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const uint64_t lent = memory->lend(pages, 1 << 16);
  // On its way, and stuck there.
  for (const auto& qp : double_.queue_pairs()) double_.hold(qp.number, false);
  ASSERT_TRUE(try_send(*link.send, SendWay::kPost, numbered(2), pages, 50000));
  Segment segment;
  for (int i = 0; i < 200; ++i) {
    completed(*link.send);
    ASSERT_TRUE(link.recv->peek(&segment).is_ok());
  }
  EXPECT_EQ(double_.regions(pages, 1 << 16), 1);
  link.send->withdraw();
  memory->take_back(lent);
  world.transport(0).drop_ended_memory();
  EXPECT_EQ(double_.regions(pages, 1 << 16), 0);
  ::munmap(pages, 1 << 16);  // a device that still reads here ends the process
  for (const auto& qp : double_.queue_pairs()) double_.release(qp.number);
  for (int i = 0; i < 200; ++i) (void)link.recv->peek(&segment);
  uint64_t count = 0;
  EXPECT_EQ(link.send->progress(&count).code(), Code::kInvalidUsage);
}

TEST_F(Rdma, SegmentsWithoutHeadersSurviveQueuePairsThatFail) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{{"RDMA_WINDOW", "4x16K"}, {"IB_QPS_PER_CONNECTION", "2"}}, memory);
  Link link = open(world);
  ASSERT_TRUE(carry(link, SendWay::kSlot, RecvWay::kInto, numbered(1), pattern(10, 1)));
  Bytes src(110000), dst(110000);
  memory->lend(src.data(), src.size());
  memory->lend(dst.data(), dst.size());
  for (uint64_t op = 2; op < 40; ++op) {
    const Bytes wanted = pattern(src.size(), op);
    std::copy(wanted.begin(), wanted.end(), src.begin());
    if (op % 5 == 0)
      for (const rdma_double_qp_t& qp : double_.queue_pairs())
        if (qp.sent_bytes > 16384) double_.fail_next(qp.number, IBV_WC_RETRY_EXC_ERR);
    ASSERT_TRUE(carry_message(link, src.data(), dst.data(), src.size(), 16384, op)) << op;
    EXPECT_TRUE(dst == src) << op;
  }
  EXPECT_EQ(of(world, 0).filled_grants, 7u * 38);
  EXPECT_GE(of(world, 0).sent_again, 5u);
}

TEST_F(Rdma, SegmentsThatArePeekedAtFollowThoseReceivedInPlace) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  const Bytes src = pattern(60000, 5);
  Bytes dst(src.size());
  memory->lend(dst.data(), dst.size());
  for (uint64_t op = 1; op < 20; ++op) {
    ASSERT_TRUE(carry(link, SendWay::kPost, RecvWay::kPeek, numbered(op), src)) << op;
    ASSERT_TRUE(carry_message(link, src.data(), dst.data(), src.size(), src.size(), op)) << op;
    EXPECT_TRUE(dst == src);
  }
}

TEST_F(Rdma, AGrantForAnotherCallIsRefusedAndTheMemoryStaysAsItWas) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  Bytes dst(50000, std::byte{0x11});
  const Bytes untouched = dst, src = pattern(40000, 1);
  memory->lend(dst.data(), dst.size());
  Status status;
  bool sent = false, done = false;
  link.recv->expect(numbered(1), dst.data(), dst.size(), dst.size());
  ASSERT_TRUE(until([&] {
    if (!sent) sent = try_send(*link.send, SendWay::kPost, numbered(2), src.data(), src.size());
    completed(*link.send);
    status = link.recv->receive_into(numbered(1), dst.data(), dst.size(), &done);
    return !status.is_ok();
  }));
  EXPECT_EQ(status.code(), Code::kInvalidUsage);
  EXPECT_EQ(status.peer(), 0);
  EXPECT_NE(status.message().find("operation 2"), std::string::npos) << status.message();
  EXPECT_TRUE(dst == untouched);
  // Nothing was consumed: the call that fits gets the segment.
  ASSERT_TRUE(until([&] {
    completed(*link.send);
    return try_receive(*link.recv, RecvWay::kInto, numbered(2), src);
  }));
}

TEST_F(Rdma, NothingIsWrittenIntoUserMemoryAfterAReceiveIsWithdrawn) {
  const auto memory = std::make_shared<TestMemory>();
  RdmaWorld world(Settings{}, memory);
  Link link = open(world);
  Bytes dst(50000, std::byte{0x11});
  const Bytes untouched = dst, src = pattern(50000, 1);
  memory->lend(dst.data(), dst.size());
  // Until the grant is out.
  ASSERT_TRUE(until([&] {
    completed(*link.send);
    bool done = false;
    EXPECT_TRUE(link.recv->receive_into(numbered(1), dst.data(), dst.size(), &done).is_ok());
    const auto all = world.rdma(0).statistics();
    return !all.empty() && all.front()->granted_bytes > 0;
  }));
  link.recv->withdraw();
  ASSERT_TRUE(try_send(*link.send, SendWay::kPost, numbered(1), src.data(), src.size()));
  for (int i = 0; i < 2000; ++i) {
    uint64_t count = 0;
    (void)link.send->progress(&count);
    sched_yield();
  }
  EXPECT_TRUE(dst == untouched);
  Segment segment;
  EXPECT_EQ(link.recv->peek(&segment).code(), Code::kInvalidUsage);
}

TEST_F(Rdma, NoMoreIsInFlightThanWasGranted) {
  for (const char* window : {"1x8K", "3x16K", "8x64K"}) {
    for (const char* qps : {"1", "4"}) {
      const WithVariable jitter("RDMA_DOUBLE_JITTER", "50us");
      RdmaWorld world(Settings{{"RDMA_WINDOW", window}, {"IB_QPS_PER_CONNECTION", qps}});
      Link link = open(world);
      Stream stream;
      stream.segments = 2000;
      ASSERT_TRUE(stream.run(link));
      const size_t most = std::stoul(window) * link.send->segment_bytes();
      EXPECT_LE(of(world, 0).peak_in_flight_bytes, most);
      EXPECT_LE(of(world, 1).peak_open_grant_bytes, most);
      EXPECT_LE(of(world, 0).written_bytes, of(world, 0).granted_bytes);
      EXPECT_LE(of(world, 0).granted_bytes, of(world, 1).granted_bytes);
      EXPECT_EQ(of(world, 0).written_bytes, of(world, 1).written_bytes);
      for (const rdma_double_qp_t& qp : double_.queue_pairs())
        EXPECT_EQ(qp.receiver_not_ready, 0u) << "a write with immediate found no receive";
    }
  }
}

TEST_F(Rdma, SegmentsOvertakeEachOtherOnSeveralQueuePairsAndAreHandedOverInOrder) {
  const WithVariable jitter("RDMA_DOUBLE_JITTER", "200us");
  RdmaWorld world(Settings{{"IB_QPS_PER_CONNECTION", "8"}, {"RDMA_WINDOW", "16x16K"}});
  Link link = open(world);
  // One queue pair's packets wait on the wire until others have overtaken them.
  std::thread release;
  Stream stream;
  stream.segments = 1000;
  stream.after = [&](int received) {
    if (received != 500) return;
    const auto qps = double_.queue_pairs();
    const auto busiest = std::ranges::max_element(qps, {}, &rdma_double_qp_t::received_bytes);
    double_.hold(busiest->number, false);
    release = std::thread([this, &world, held = busiest->number] {
      EXPECT_TRUE(until([&] { return of(world, 1).out_of_order > 0; }));
      double_.release(held);
    });
  };
  const bool ended = stream.run(link);
  if (release.joinable()) release.join();
  ASSERT_TRUE(ended);
  EXPECT_EQ(of(world, 0).qps_used, 0xffu);
}

TEST_F(Rdma, PinsAtMostFourMebibytesPerPeerWithEightLanesBothWays) {
  RdmaWorld world(Settings{});
  std::vector<Link> links;
  for (int lane = 0; lane < 8; ++lane) {
    links.push_back(open(world, lane));
    links.push_back(open_link(world.transport(1), world.transport(0), 1, 0, lane));
  }
  for (Link& link : links) {
    Stream stream;
    stream.segments = 60;
    ASSERT_TRUE(stream.run(link));
  }
  EXPECT_GT(world.transport(0).stats().pinned_bytes, size_t{1} << 20);
  EXPECT_LE(world.transport(0).stats().pinned_bytes, size_t{4} << 20);
  EXPECT_EQ(world.transport(0).stats().queue_pairs, 32) << "one for data, one for grants";
  links.clear();
  EXPECT_EQ(world.transport(0).stats().pinned_bytes, 0u);
  EXPECT_EQ(world.transport(0).stats().queue_pairs, 0);
}

TEST_F(Rdma, HoldsNothingBeforeAChannelIsOpened) {
  RdmaWorld world(Settings{});
  EXPECT_EQ(world.transport(0).stats().pinned_bytes, 0u);
  EXPECT_EQ(world.transport(0).stats().queue_pairs, 0);
  EXPECT_TRUE(double_.queue_pairs().empty());
}

TEST_F(Rdma, RanksAgreeWhenOneOfThemHasNoDevice) {
  const auto bootstraps = loopback_bootstraps(2);
  for (auto& made : make_transports(bootstraps, {{}, {{"IB_DISABLE", "1"}}}, nullptr)) {
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    EXPECT_EQ(*made, nullptr);
  }
  for (auto& made : make_transports(bootstraps, {{}, {{"IB_HCA", "^"}}}, nullptr)) {
    EXPECT_EQ(made.status().code(), Code::kInvalidArgument);
    EXPECT_EQ(made.status().peer(), 1);
    EXPECT_NE(made.status().message().find("COMM_IB_HCA=^"), std::string::npos);
  }
}

TEST_F(Rdma, MemoryThatMayNotBeLockedIsReportedAndAllRanksUseSockets) {
  const WithVariable limit("RDMA_DOUBLE_MEMLOCK", "40K");
  testing::internal::CaptureStderr();
  const auto bootstraps = loopback_bootstraps(2);
  for (auto& made : make_transports(bootstraps, {{}, {}}, nullptr)) {
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    EXPECT_EQ(*made, nullptr);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("RDMA is not used"), std::string::npos) << log;
  EXPECT_NE(log.find("opening an RDMA channel with rank"), std::string::npos) << log;
  EXPECT_NE(log.find("ulimit -l"), std::string::npos) << log;
}

TEST_F(Rdma, QueuePairsThatADeviceDoesNotHaveAreReportedAndAllRanksUseSockets) {
  const WithVariable limit("RDMA_DOUBLE_MAX_QP", "6");
  testing::internal::CaptureStderr();
  const auto bootstraps = loopback_bootstraps(2);
  const Settings many = {{"IB_QPS_PER_CONNECTION", "8"}};
  for (auto& made : make_transports(bootstraps, {many, many}, nullptr)) {
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    EXPECT_EQ(*made, nullptr);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("use fewer COMM_IB_QPS_PER_CONNECTION or lanes"), std::string::npos) << log;
}

}  // namespace
}  // namespace libcomm::test
