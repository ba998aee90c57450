// The handshake and the messages of control links, against peers that lie.
#include "src/bootstrap/handshake.h"

#include <gtest/gtest.h>
#include <openssl/hmac.h>
#include <sys/socket.h>

#include <cstring>
#include <random>

#include "src/base/fd.h"
#include "src/bootstrap/news.h"
#include "src/bootstrap/peer.h"
#include "src/bootstrap/unique_id.h"

namespace libcomm {
namespace {

struct Wire {
  UniqueFd caller, callee;
  Wire() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    caller = UniqueFd(fds[0]);
    callee = UniqueFd(fds[1]);
  }
};

Key key_of(unsigned char byte) {
  Key key;
  key.fill(byte);
  return key;
}

TEST(Handshake, LetsBothSidesInWhoKnowTheKey) {
  Wire wire;
  CallerHandshake caller(key_of(1), 99, 2, 3, 7);
  CalleeHandshake callee(key_of(1), 3, 8);
  EXPECT_EQ(caller.start(wire.caller.get()), Handshake::kAgain);
  EXPECT_EQ(callee.step(wire.callee.get()), Handshake::kAgain);
  EXPECT_EQ(caller.step(wire.caller.get()), Handshake::kDone);
  EXPECT_EQ(callee.step(wire.callee.get()), Handshake::kDone);
  EXPECT_EQ(callee.hello().from, 2u);
  EXPECT_EQ(callee.hello().purpose, 99);
  EXPECT_EQ(callee.hello().index, 7u);
}

TEST(Handshake, CallerRefusesACalleeWithAnotherKey) {
  Wire wire;
  CallerHandshake caller(key_of(1), 99, 2, 3, 7);
  CalleeHandshake callee(key_of(2), 3, 8);
  caller.start(wire.caller.get());
  EXPECT_EQ(callee.step(wire.callee.get()), Handshake::kAgain);
  EXPECT_EQ(caller.step(wire.caller.get()), Handshake::kStranger);
}

// Plays a caller by hand, so that it can lie at every step.
Handshake lie(
    const std::function<void(HelloWire*)>& change_hello,
    const std::function<void(const HelloWire&, const ChallengeWire&, ProofWire*)>& prove) {
  Wire wire;
  CalleeHandshake callee(key_of(1), 3, 8);
  HelloWire hello{};
  hello.magic = kHandshakeMagic;
  hello.version = kHandshakeVersion;
  hello.purpose = 99;
  hello.from = 2;
  hello.to = 3;
  hello.group = group_of(key_of(1));
  change_hello(&hello);
  EXPECT_EQ(::send(wire.caller.get(), &hello, sizeof hello, 0), ssize_t{sizeof hello});
  const Handshake first = callee.step(wire.callee.get());
  if (first != Handshake::kAgain) return first;
  ChallengeWire challenge;
  EXPECT_EQ(::recv(wire.caller.get(), &challenge, sizeof challenge, 0), ssize_t{sizeof challenge});
  ProofWire proof{};
  prove(hello, challenge, &proof);
  EXPECT_EQ(::send(wire.caller.get(), &proof, sizeof proof, 0), ssize_t{sizeof proof});
  return callee.step(wire.callee.get());
}

void true_proof(const HelloWire& hello, const ChallengeWire& challenge, ProofWire* proof) {
  const Mac mac =
      hmac(key_of(1), "libcomm handshake 1 caller",
           {{reinterpret_cast<const unsigned char*>(&hello), sizeof hello}, challenge.nonce});
  std::memcpy(proof->mac, mac.data(), mac.size());
}

TEST(Handshake, CalleeRefusesAnyProofButTheTrueOne) {
  const auto unchanged = [](HelloWire*) {};
  EXPECT_EQ(lie(unchanged, true_proof), Handshake::kDone);
  EXPECT_EQ(lie(unchanged, [](const auto&, const auto&, ProofWire*) {}), Handshake::kStranger);
  // The callee's own proof, sent back.
  EXPECT_EQ(lie(unchanged,
                [](const auto&, const ChallengeWire& challenge, ProofWire* proof) {
                  std::memcpy(proof->mac, challenge.mac, sizeof proof->mac);
                }),
            Handshake::kStranger);
  // A proof for another purpose.
  EXPECT_EQ(lie(unchanged,
                [](HelloWire hello, const ChallengeWire& challenge, ProofWire* proof) {
                  hello.purpose = 98;
                  true_proof(hello, challenge, proof);
                }),
            Handshake::kStranger);
}

TEST(Handshake, CalleeRefusesImpossibleHellos) {
  EXPECT_EQ(lie([](HelloWire* h) { h->magic = 1; }, true_proof), Handshake::kStranger);
  EXPECT_EQ(lie([](HelloWire* h) { h->to = 4; }, true_proof), Handshake::kStranger);
  EXPECT_EQ(lie([](HelloWire* h) { h->from = 8; }, true_proof), Handshake::kStranger);
  EXPECT_EQ(lie([](HelloWire* h) { h->group ^= 1; }, true_proof), Handshake::kStranger);
  EXPECT_EQ(lie([](HelloWire* h) { h->version = 9; }, true_proof), Handshake::kVersion);
}

TEST(News, SurvivesTheWireAndStaysOneLine) {
  const Status reason =
      error(Code::kRemote, "first\nsecond\x1b[31m").at_rank(1).with_peer(3).in_op(17);
  const std::string bytes = encode_news(NewsType::kAbort, reason);
  for (size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_EQ(parse_news(bytes.substr(0, cut), 4).state, ParsedNews::kIncomplete) << cut;
  const ParsedNews news = parse_news(bytes + "more", 4);
  ASSERT_EQ(news.state, ParsedNews::kMessage);
  EXPECT_EQ(news.bytes, bytes.size());
  EXPECT_EQ(news.reason.message(), "first second [31m");
  EXPECT_EQ(news.reason.rank(), 1);
  EXPECT_EQ(news.reason.peer(), 3);
  EXPECT_EQ(news.reason.op(), 17u);
}

TEST(News, RefusesRanksOutsideTheGroup) {
  const std::string bytes = encode_news(NewsType::kDeath, error(Code::kRemote, "x").with_peer(3));
  EXPECT_EQ(parse_news(bytes, 4).state, ParsedNews::kMessage);
  EXPECT_EQ(parse_news(bytes, 3).state, ParsedNews::kMalformed);
}

TEST(Parsers, SurviveRandomBytes) {
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 4 == 0 ? random() : random() % 6);
    const ParsedNews news = parse_news(bytes, 4);
    EXPECT_LE(news.bytes, bytes.size());
    bytes.resize(168);
    Peer peer;
    if (peer.decode(bytes)) {
      EXPECT_FALSE(peer.endpoint.empty());
    }
  }
}

TEST(UniqueId, IsToldFromGarbage) {
  Meeting meeting;
  meeting.key = key_of(5);
  AddressWire wire{4, 0, 4711, {127, 0, 0, 1}};
  meeting.endpoint = {wire.decode()};
  auto id = encode(meeting);
  ASSERT_TRUE(id);
  auto back = decode(*id);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->key, meeting.key);
  EXPECT_EQ(back->endpoint, meeting.endpoint);
  for (size_t i = 0; i < id->size(); ++i) {
    UniqueIdBytes damaged = *id;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    const auto refused = decode(damaged);
    ASSERT_FALSE(refused) << i;
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
    EXPECT_NE(refused.status().message().find("commGetUniqueId"), std::string::npos);
  }
}

// With OpenSSL's as the reference; keys of more than a block are hashed first.
TEST(Hmac, IsTheStandardOne) {
  for (const size_t key_bytes :
       {size_t{0}, size_t{1}, size_t{32}, size_t{64}, size_t{65}, size_t{200}}) {
    const std::vector<unsigned char> key(key_bytes, 0xa7);
    const std::vector<unsigned char> part(key_bytes * 3 + 1, 0x31);
    std::string text("label\0", 6);
    text.append(part.begin(), part.end());
    Mac expected{};
    unsigned length = 0;
    ::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), expected.data(),
           &length);
    EXPECT_EQ(hmac(key, "label", {part}), expected) << key_bytes;
  }
}

}  // namespace
}  // namespace libcomm
