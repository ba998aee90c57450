// Small segments of both directions on one connection: which bytes go on which socket.
#include <sys/resource.h>
#include <sys/socket.h>

#include "tests/transports/pump.h"
#include "transports/tcp/receiver.h"
#include "transports/tcp/sender.h"

namespace libcomm::test {
namespace {

constexpr size_t kSmall = 8;
constexpr size_t kLarge = 64 << 10;
constexpr int kRun = 16;  // small segments before the channel moves

// The channel from rank 1 to rank 0: its own connection, and the one that rank 0 opened.
class TcpDuplex : public testing::Test {
 protected:
  void SetUp() override {
    connect(&own_[0], &own_[1]);
    connect(&shared_[0], &shared_[1]);
    for (auto& duplex : duplex_) duplex = std::make_shared<Duplex>();
  }
  static void connect(UniqueFd* a, UniqueFd* b) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    *a = UniqueFd(ends[0]);
    *b = UniqueFd(ends[1]);
  }
  std::unique_ptr<TcpSender> sender(const TcpEnds& ends = {1, 0}) {
    return std::make_unique<TcpSender>(ends, options(), counters_, one(std::move(own_[1])),
                                       duplex_[1]);
  }
  std::unique_ptr<TcpReceiver> receiver() {
    return std::make_unique<TcpReceiver>(TcpEnds{0, 1}, options(), counters_,
                                         one(std::move(own_[0])), duplex_[0]);
  }
  static std::vector<UniqueFd> one(UniqueFd fd) {
    std::vector<UniqueFd> sockets;
    sockets.push_back(std::move(fd));
    return sockets;
  }
  static TcpOptions options() {
    TcpOptions options;
    options.segment_bytes = kLarge;
    return options;
  }
  void post(TcpSender& sender, const Bytes& payload) {
    bool accepted = false;
    ASSERT_TRUE(
        sender.post(numbered(posted_++), payload.data(), payload.size(), &accepted).is_ok());
    ASSERT_TRUE(accepted);
  }
  // Takes what has arrived; how many bytes.
  static size_t drain(const UniqueFd& fd) {
    Bytes bytes(256 << 10);
    size_t all = 0;
    for (ssize_t got; (got = ::recv(fd.get(), bytes.data(), bytes.size(), 0)) > 0;)
      all += static_cast<size_t>(got);
    return all;
  }

  std::shared_ptr<TcpCounters> counters_ = std::make_shared<TcpCounters>();
  UniqueFd own_[2], shared_[2];  // by rank
  std::shared_ptr<Duplex> duplex_[2];
  uint64_t posted_ = 0;
};

constexpr size_t on_wire(size_t payload) { return sizeof(SegmentHeader) + payload; }

TEST_F(TcpDuplex, SmallSegmentsMoveToTheSharedConnectionAndLargeOnesBack) {
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const Bytes small = pattern(kSmall, 1), large = pattern(kLarge, 2);
  for (int i = 0; i < kRun + 5; ++i) post(*send, small);
  EXPECT_EQ(drain(own_[0]), kRun * on_wire(kSmall));
  EXPECT_EQ(drain(shared_[0]), 5 * on_wire(kSmall));

  post(*send, large);  // tells that the next ones come elsewhere
  post(*send, large);
  post(*send, small);
  EXPECT_EQ(drain(shared_[0]), on_wire(kLarge));
  EXPECT_EQ(drain(own_[0]), on_wire(kLarge) + on_wire(kSmall));
}

TEST_F(TcpDuplex, AFewSmallSegmentsBetweenLargeOnesStay) {
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const Bytes small = pattern(kSmall, 1), large = pattern(kLarge, 2);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < kRun - 1; ++i) post(*send, small);
    post(*send, large);
    EXPECT_EQ(drain(own_[0]), (kRun - 1) * on_wire(kSmall) + on_wire(kLarge));
  }
  EXPECT_EQ(drain(shared_[0]), 0u);
}

TEST_F(TcpDuplex, SegmentsThatWaitGoWhereTheyWereMeantToGo) {
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const Bytes small = pattern(kSmall, 1), large = pattern(kLarge, 2);
  constexpr int kLarges = 8;  // more than the socket takes
  for (int i = 0; i < kLarges; ++i) post(*send, large);
  uint64_t completed = 0;
  ASSERT_TRUE(send->progress(&completed).is_ok());
  ASSERT_LT(completed, static_cast<uint64_t>(kLarges));
  for (int i = 0; i < kRun + 5; ++i) post(*send, small);
  EXPECT_EQ(drain(shared_[0]), 0u) << "what was posted before has not left";

  size_t own = 0;
  ASSERT_TRUE(until([&] {
    own += drain(own_[0]);
    EXPECT_TRUE(send->progress(&completed).is_ok());
    return completed == static_cast<uint64_t>(kLarges + kRun + 5);
  }));
  own += drain(own_[0]);
  EXPECT_EQ(own, kLarges * on_wire(kLarge) + kRun * on_wire(kSmall));
  EXPECT_EQ(drain(shared_[0]), 5 * on_wire(kSmall));
}

TEST_F(TcpDuplex, WithoutASecondConnectionEverythingStays) {
  const auto send = sender();
  const Bytes small = pattern(kSmall, 1);
  for (int i = 0; i < 2 * kRun; ++i) post(*send, small);
  EXPECT_EQ(drain(own_[0]), 2 * kRun * on_wire(kSmall));
}

TEST_F(TcpDuplex, TheLowerRankOffersItsConnectionWhileItHasIt) {
  const int expected = own_[1].get();
  auto send = sender({1, 2});
  const auto taken = duplex_[1]->take();
  ASSERT_TRUE(taken.is_ok() && taken->valid());
  EXPECT_NE(taken->get(), expected) << "a descriptor of its own";
  send.reset();
  const auto later = duplex_[1]->take();
  ASSERT_TRUE(later.is_ok());
  EXPECT_FALSE(later->valid());
}

TEST_F(TcpDuplex, TheReceiverFollowsInOrder) {
  duplex_[0]->offer(shared_[0].get());
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const auto receive = receiver();
  uint64_t taken = 0;
  for (int round = 0; round < 3; ++round) {
    for (const size_t bytes : {kSmall, kLarge}) {
      const Bytes payload = pattern(bytes, 7);
      for (int i = 0; i < 2 * kRun; ++i) {
        post(*send, payload);
        const RecvWay way = i % 2 == 0 ? RecvWay::kPeek : RecvWay::kInto;
        ASSERT_TRUE(until([&] {
          uint64_t completed = 0;
          EXPECT_TRUE(send->progress(&completed).is_ok());
          return try_receive(*receive, way, numbered(taken), payload);
        }));
        ++taken;
      }
    }
  }
}

// No descriptor more than there are.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit few = before_;
    few.rlim_cur = 3;
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(TcpDuplex, AMoveWithoutADescriptorLeftNamesTheLimit) {
  duplex_[0]->offer(shared_[0].get());
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const auto receive = receiver();
  const Bytes payload = pattern(kSmall, 3);
  for (int i = 0; i < kRun; ++i) post(*send, payload);
  const NoDescriptors none;
  Status status;
  for (int i = 0; i < kRun && status; ++i) {
    Bytes dst(kSmall);
    bool done = false;
    status = receive->receive_into(numbered(static_cast<uint64_t>(i)), dst.data(), kSmall, &done);
  }
  EXPECT_EQ(status.code(), Code::kSystem) << status.message();
  EXPECT_EQ(status.rank(), 0);
  EXPECT_NE(status.message().find("this process may have 3 descriptors: raise `ulimit -n`"),
            std::string::npos)
      << status.message();
}

TEST_F(TcpDuplex, ASenderWithoutADescriptorLeftStaysWhereItIs) {
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const Bytes small = pattern(kSmall, 1);
  const NoDescriptors none;
  for (int i = 0; i < 2 * kRun; ++i) post(*send, small);
  EXPECT_EQ(drain(own_[0]), 2 * kRun * on_wire(kSmall));
}

TEST_F(TcpDuplex, RefusesAMoveToAConnectionThatItDoesNotHave) {
  duplex_[1]->offer(shared_[1].get());
  const auto send = sender();
  const auto receive = receiver();
  const Bytes payload = pattern(kSmall, 3);
  for (int i = 0; i < kRun; ++i) post(*send, payload);
  Status status;
  for (int i = 0; i < kRun && status; ++i) {
    Bytes dst(kSmall);
    bool done = false;
    status = receive->receive_into(numbered(static_cast<uint64_t>(i)), dst.data(), kSmall, &done);
  }
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_EQ(status.message(),
            "rank 1 moves to a connection that this rank does not have: the stream is corrupt");
}

}  // namespace
}  // namespace libcomm::test
