// A TCP receiver against bytes that no sender of ours would send, and in pieces of any size.
#include <sys/socket.h>

#include "tests/transports/pump.h"
#include "transports/tcp/receiver.h"

namespace libcomm::test {
namespace {

constexpr size_t kSegment = 64 << 10;

// A receiver of rank 4 and the raw other end of its only socket.
class TcpWire : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    raw_ = UniqueFd(ends[0]);
    TcpOptions options;
    options.segment_bytes = kSegment;
    std::vector<UniqueFd> sockets;
    sockets.emplace_back(ends[1]);
    receiver_ = std::make_unique<TcpReceiver>(TcpEnds{4, 3}, options,
                                              std::make_shared<TcpCounters>(), std::move(sockets));
  }

  void write(const void* data, size_t bytes) {
    ASSERT_EQ(::send(raw_.get(), data, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  static SegmentHeader header(uint32_t sequence, size_t bytes) {
    SegmentHeader header;
    header.sequence = sequence;
    header.bytes = static_cast<uint32_t>(bytes);
    header.signature = numbered(sequence);
    return header;
  }
  // Header and payload as they are on the wire.
  static Bytes wire(uint32_t sequence, const Bytes& payload) {
    const SegmentHeader head = header(sequence, payload.size());
    Bytes bytes(sizeof head + payload.size());
    std::memcpy(bytes.data(), &head, sizeof head);
    std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof head);
    return bytes;
  }
  void expect_corrupt(const SegmentHeader& head, const char* text) {
    write(&head, sizeof head);
    Bytes dst(16, std::byte{0x11});
    bool done = false;
    const Status status = receiver_->receive_into(numbered(0), dst.data(), dst.size(), &done);
    EXPECT_EQ(status.code(), Code::kRemote);
    EXPECT_EQ(status.rank(), 4);
    EXPECT_EQ(status.peer(), 3);
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("rank 3"), std::string::npos) << status.message();
    EXPECT_FALSE(done);
    EXPECT_EQ(dst, Bytes(16, std::byte{0x11})) << "nothing is written";
    // The stream is of no use any more.
    Segment segment;
    EXPECT_EQ(receiver_->peek(&segment).code(), Code::kRemote);
  }

  UniqueFd raw_;
  std::unique_ptr<TcpReceiver> receiver_;
};

TEST_F(TcpWire, RefusesBytesThatAreNoHeader) {
  SegmentHeader bad = header(0, 16);
  bad.magic = 0x20545447;
  expect_corrupt(bad, "0x20545447");
}

TEST_F(TcpWire, RefusesAnotherVersion) {
  SegmentHeader bad = header(0, 16);
  bad.version = 3;
  expect_corrupt(bad, "segments of version 3, this rank reads version 2");
}

TEST_F(TcpWire, RefusesUnknownFlags) {
  SegmentHeader bad = header(0, 16);
  bad.flags = 6;
  expect_corrupt(bad, "unknown flags 0x6");
}

TEST_F(TcpWire, RefusesASegmentBeyondTheAgreedSize) {
  expect_corrupt(header(0, kSegment + 1), "65537 bytes where at most 65536 are agreed");
}

TEST_F(TcpWire, RefusesASegmentOutOfSequence) { expect_corrupt(header(5, 16), "segment 5"); }

TEST_F(TcpWire, AssemblesSegmentsThatComeByteByByte) {
  for (const RecvWay way : {RecvWay::kPeek, RecvWay::kInto}) {
    const uint32_t sequence = way == RecvWay::kPeek ? 0 : 1;
    const Bytes payload = pattern(100, sequence);
    const Bytes bytes = wire(sequence, payload);
    for (size_t i = 0; i < bytes.size(); ++i) {
      ASSERT_FALSE(try_receive(*receiver_, way, numbered(sequence), payload)) << i;
      write(&bytes[i], 1);
    }
    ASSERT_TRUE(try_receive(*receiver_, way, numbered(sequence), payload));
  }
}

TEST_F(TcpWire, TakesManySegmentsFromOnePacket) {
  Bytes stream;
  for (uint32_t i = 0; i < 100; ++i) {
    const Bytes bytes = wire(i, pattern(i * 7 % 300, i));
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }
  write(stream.data(), stream.size());
  for (uint32_t i = 0; i < 100; ++i) {
    const RecvWay way = i % 3 == 0 ? RecvWay::kInto : RecvWay::kPeek;
    // A segment at the end of the read-ahead buffer takes a second look.
    ASSERT_TRUE(until([&] {
      return try_receive(*receiver_, way, numbered(i), pattern(i * 7 % 300, i));
    })) << i;
  }
}

TEST_F(TcpWire, AssemblesSegmentsCutAnywhere) {
  std::mt19937 random(11);
  uint32_t sequence = 0;
  for (int round = 0; round < 60; ++round) {
    const RecvWay way = round % 2 == 0 ? RecvWay::kPeek : RecvWay::kInto;
    const Bytes payload = pattern(random() % 3 == 0 ? random() % 40000 : random() % 9000, sequence);
    const Bytes bytes = wire(sequence, payload);
    size_t sent = 0;
    ASSERT_TRUE(until([&] {
      const size_t part = std::min<size_t>(1 + random() % 5000, bytes.size() - sent);
      if (part > 0) write(bytes.data() + sent, part);
      sent += part;
      return try_receive(*receiver_, way, numbered(sequence), payload);
    }));
    EXPECT_EQ(sent, bytes.size());
    ++sequence;
  }
}

TEST_F(TcpWire, NamesThePeerThatDiesInTheMiddleOfASegment) {
  const Bytes bytes = wire(0, pattern(20000, 1));
  write(bytes.data(), 15000);
  raw_.reset();
  Bytes dst(20000);
  bool done = false;
  Status status;
  ASSERT_TRUE(until([&] {
    status = receiver_->receive_into(numbered(0), dst.data(), dst.size(), &done);
    return !status.is_ok();
  }));
  EXPECT_FALSE(done);
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_EQ(status.message(),
            "connection to rank 3 closed: the process probably died; see its log");
  EXPECT_EQ(status.peer(), 3);
}

TEST_F(TcpWire, RefusesAPeekInTheMiddleOfAReceive) {
  const Bytes payload = pattern(20000, 1);
  const Bytes bytes = wire(0, payload);
  write(bytes.data(), 15000);
  Bytes dst(20000);
  bool done = false;
  ASSERT_TRUE(receiver_->receive_into(numbered(0), dst.data(), dst.size(), &done).is_ok());
  Segment segment;
  EXPECT_EQ(receiver_->peek(&segment).code(), Code::kInternal);
  // The receive is not harmed.
  write(bytes.data() + 15000, bytes.size() - 15000);
  ASSERT_TRUE(until([&] {
    EXPECT_TRUE(receiver_->receive_into(numbered(0), dst.data(), dst.size(), &done).is_ok());
    return done;
  }));
  EXPECT_EQ(dst, payload);
}

// Whatever comes, the receiver ends with an error or waits; it never writes beyond its memory
// (ASan).
TEST_F(TcpWire, SurvivesNoise) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    SetUp();
    std::mt19937 random(seed);
    Bytes stream;
    for (uint32_t i = 0; i < 6; ++i) {
      const Bytes bytes = wire(i, pattern(random() % 12000, i));
      stream.insert(stream.end(), bytes.begin(), bytes.end());
    }
    for (int flip = 0; flip < 3; ++flip) {
      stream[random() % stream.size()] ^= static_cast<std::byte>(1 + random() % 255);
    }
    write(stream.data(), stream.size());
    raw_.reset();
    Bytes dst(kSegment);
    for (Status status; status.is_ok();) {
      Segment segment;
      Signature signature;
      size_t bytes = 0;
      bool done = false;
      if (random() % 2 == 0) {
        status = receiver_->receive_any(dst.data(), &signature, &bytes, &done);
        while (status.is_ok() && !done)
          status = receiver_->receive_any(dst.data(), &signature, &bytes, &done);
      } else {
        status = receiver_->peek(&segment);
        if (segment.ready) status = receiver_->release();
      }
    }
  }
}

}  // namespace
}  // namespace libcomm::test
