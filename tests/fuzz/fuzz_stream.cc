// Bytes that arrive on sockets piece by piece: handshakes, the root's answer, set-up exchanges,
// segments.
#include <sys/socket.h>

#include "src/bootstrap/handshake.h"
#include "src/bootstrap/root.h"
#include "src/bootstrap/tree.h"
#include "tests/fuzz/fuzz.h"
#include "transports/tcp/receiver.h"

namespace libcomm::fuzz {
namespace {

// A connection whose far end says the given bytes and hangs up. The near end is non-blocking.
class Stream {
 public:
  Stream() {
    int fds[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    near_ = UniqueFd(fds[0]);
    far_ = UniqueFd(fds[1]);
  }
  explicit Stream(std::string_view bytes) : Stream() {
    say(bytes);
    hang_up();
  }
  void say(std::string_view bytes) {
    if (!bytes.empty()) (void)!::send(far_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // What the near end wrote stays readable until the stream goes.
  void hang_up() { ::shutdown(far_.get(), SHUT_WR); }
  int fd() const { return near_.get(); }
  UniqueFd take() { return std::move(near_); }

 private:
  UniqueFd near_, far_;
};

Key some_key() {
  Key key;
  key.fill(42);
  return key;
}

// Whoever does not know the key is never let in, however its bytes are cut.
template <typename Side>
void handshake(Side side, Stream& stream, Input input) {
  const size_t cut = input.byte();
  const std::string_view bytes = input.rest();
  Handshake result = Handshake::kAgain;
  for (size_t at = 0; at <= bytes.size() && result == Handshake::kAgain;) {
    const size_t piece = std::min(bytes.size() - at, cut + 1);
    stream.say(bytes.substr(at, piece));
    at += piece;
    if (at == bytes.size()) stream.hang_up();
    result = side.step(stream.fd());
    if (piece == 0) break;
  }
  FUZZ_CHECK(result != Handshake::kDone);
  FUZZ_CHECK(result != Handshake::kAgain || bytes.empty() ||
             side.step(stream.fd()) != Handshake::kDone);
}

void root_answers(std::string_view bytes) {
  Stream stream(bytes);
  ReportWire report{};
  report.nranks = 5;
  report.nparts = 1;
  const auto answer = report_to_root(stream.take(), report, {}, nullptr);
  if (!answer) return;
  FUZZ_CHECK(answer->parent == kNoRank || (answer->parent < 5 && !answer->endpoint.empty()));
}

// Rank 0 of three, whose only child says the bytes.
void exchanges(std::string_view bytes) {
  Stream stream(bytes);
  std::vector<TreeEdge> children;
  children.push_back({1, stream.take()});
  Tree tree(0, 3, TreeEdge(), std::move(children));
  const auto blocks = tree.exchange(ExchangeKind::kText, 0, "mine", {});
  if (!blocks) {
    FUZZ_CHECK(blocks.status().peer() >= 0);
    return;
  }
  FUZZ_CHECK(blocks->size() == 3 && blocks->front() == "mine");
}

void segments(Input input) {
  TcpOptions options;
  options.segment_bytes = 16 << 10;
  const bool direct = (input.byte() & 1) != 0;
  Stream stream(input.rest());
  std::vector<UniqueFd> sockets;
  sockets.push_back(stream.take());
  TcpReceiver receiver({0, 1}, options, std::make_shared<TcpCounters>(), std::move(sockets));
  std::vector<std::byte> memory(options.segment_bytes);
  size_t taken = 0;
  // The stream ends, so the receiver must fail; every segment is one header at least.
  for (size_t turn = 0;; ++turn) {
    FUZZ_CHECK(turn <= 4 * (input.rest().size() + 4));
    Status status;
    if (direct) {
      Signature signature;
      size_t bytes = 0;
      bool done = false;
      status = receiver.receive_any(memory.data(), &signature, &bytes, &done);
      FUZZ_CHECK(!done || bytes <= options.segment_bytes);
      if (done) taken += bytes;
    } else {
      Segment segment;
      status = receiver.peek(&segment);
      if (status && segment.ready) {
        FUZZ_CHECK(segment.bytes <= options.segment_bytes);
        if (segment.bytes > 0) std::memcpy(memory.data(), segment.data, segment.bytes);
        taken += segment.bytes;
        FUZZ_CHECK(receiver.release());
      }
    }
    if (!status) {
      FUZZ_CHECK(status.code() == Code::kRemote && status.peer() == 1);
      break;
    }
  }
  FUZZ_CHECK(taken <= input.rest().size());
}

std::string segment(uint32_t sequence, size_t bytes) {
  SegmentHeader header;
  header.sequence = sequence;
  header.bytes = static_cast<uint32_t>(bytes);
  return bytes_of(header) + std::string(bytes, 'p');
}

std::string block(uint32_t rank, std::string_view text) {
  BlockWire wire{};
  wire.rank = rank;
  wire.bytes = text.size();
  return bytes_of(wire) + std::string(text);
}

}  // namespace

std::vector<std::string> seeds() {
  HelloWire hello{};
  hello.magic = kHandshakeMagic;
  hello.version = kHandshakeVersion;
  hello.purpose = static_cast<uint16_t>(Use::kRoot);
  hello.from = 1;
  hello.group = group_of(some_key());
  ChallengeWire challenge{};
  challenge.magic = kHandshakeMagic;
  challenge.version = kHandshakeVersion;
  AnswerWire parentless{};
  parentless.parent = kNoRank;
  AnswerWire parent{};
  parent.parent = 2;
  parent.parent_endpoint.count = 1;
  parent.parent_endpoint.addresses[0] = {4, 0, 4711, {127, 0, 0, 1}};
  AnswerWire failure{};
  failure.code = static_cast<uint32_t>(Code::kInvalidUsage);
  failure.text_bytes = 5;
  FrameWire frame{};
  frame.magic = 0x65724d43;
  frame.kind = static_cast<uint32_t>(ExchangeKind::kText);
  frame.sequence = 1;
  const std::string blocks = block(1, "one") + block(2, "two");
  frame.bytes = blocks.size();
  return {"\x07" + bytes_of(hello) + std::string(32, 'm'),
          "\x40" + bytes_of(challenge),
          bytes_of(parentless),
          bytes_of(parent),
          bytes_of(failure) + "wrong",
          bytes_of(frame) + blocks,
          std::string(1, '\0') + segment(0, 8) + segment(1, 0) + segment(2, 100),
          std::string(1, '\1') + segment(0, 3000) + segment(1, 8)};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm;
  using namespace libcomm::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Input input(data, size);
  {
    Stream stream;
    handshake(CalleeHandshake(some_key(), 0, 4), stream, input);
  }
  {
    Stream stream;
    CallerHandshake caller(some_key(), static_cast<uint16_t>(Use::kRoot), 1, 0, 0);
    FUZZ_CHECK(caller.start(stream.fd()) == Handshake::kAgain);
    handshake(caller, stream, input);
  }
  root_answers(bytes);
  exchanges(bytes);
  segments(input);
  return 0;
}
